"""Change-record schemas: derived, fingerprinted, compared."""

from dataclasses import replace

import pytest

from schemas.change_record import METADATA_FIELDS, Column, TableSchema, lake_column_names, lake_table_name
from schemas.compatibility import changes, problems, type_text
from schemas.fingerprint import crc64_avro, parsing_fingerprint


def decimal(precision: int, scale: int) -> dict[str, object]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}


def table(**columns: object) -> TableSchema:
    return TableSchema("shop", "orders", tuple(Column(n, t, n, str(t)) for n, t in columns.items()), ("id",))


def test_a_table_schema_survives_its_avro_form() -> None:
    """from_avro is the inverse of to_avro, comments included."""
    schema = replace(table(id="long"), columns=(Column("id", "long", "ID", "bigint", "the number"),))
    assert TableSchema.from_avro(schema.to_avro()) == schema


def test_metadata_comes_first_and_every_column_may_be_null() -> None:
    """The order of fields is the wire format's; a column's default is null, so that later readers can read on."""
    fields = table(id="long", a="string").to_avro()["fields"]
    assert [field["name"] for field in fields[:8]] == [field["name"] for field in METADATA_FIELDS]
    assert all(field["type"][0] == "null" and field["default"] is None for field in fields[8:])


def test_the_fingerprint_algorithm_is_avros() -> None:
    """Known answers of CRC-64-AVRO: the empty input, and the schemas "int" and "null" of the specification's cases."""
    assert int.from_bytes(crc64_avro(b""), "little") == 0xC15D213AA4D7A795
    assert int.from_bytes(parsing_fingerprint({"type": "int"}), "little") == 0x7275D51A3F395C8F
    assert int.from_bytes(parsing_fingerprint({"type": "null"}), "little") == 0x63DD24E7CC258F8A


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (table(id="long", a=decimal(10, 2)), table(id="long", a=decimal(10, 4))),
        (table(id="long", a="bytes"), table(id="long", a=decimal(10, 4))),
        (table(id="long", a="string"), replace(table(id="long", a="string"), key=("id", "a"))),
        (table(id="long", a="string"), table(id="long", b="string")),
    ],
)
def test_schemas_that_read_differently_have_different_fingerprints(one: TableSchema, other: TableSchema) -> None:
    """Scale, logical type, key and names all count."""
    assert one.fingerprint() != other.fingerprint()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["id", "Name"], ("id", "name")),
        (["id", "ID", "Id"], ("id", "id__2", "id__3")),
        (["_op", "_tier"], ("_op__2", "_tier__2")),
        (["unit price", "1st", "größe", ""], ("unit_price", "c_1st", "gr__e", "c_")),
    ],
)
def test_lake_names_are_plain_and_unique(names: list[str], expected: tuple[str, ...]) -> None:
    """Athena ignores case and dislikes odd names; metadata fields keep theirs."""
    assert lake_column_names(names) == expected


def test_the_public_schema_is_dropped_from_a_tables_name() -> None:
    """Tables of other schemas carry the schema's name."""
    assert lake_table_name("public", "Orders") == "orders"
    assert lake_table_name("sales", "orders") == "sales_orders"


def test_a_table_called_as_one_of_ours_keeps_its_schemas_name() -> None:
    """`holes` and `watermark` stand in the source's databases already."""
    assert lake_table_name("public", "Holes") == "public_holes"
    assert lake_table_name("public", "watermark") == "public_watermark"
    assert lake_table_name("sales", "holes") == "sales_holes"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (table(id="long", a="int"), table(id="long", a="long")),
        (table(id="long", a="float"), table(id="long", a="double")),
        (table(id="long", a=decimal(10, 2)), table(id="long", a=decimal(12, 2))),
        (table(id="long"), table(id="long", a="string")),
        (table(id="long", a="string"), table(id="long")),
    ],
)
def test_widening_adding_and_dropping_are_compatible(old: TableSchema, new: TableSchema) -> None:
    """What Iceberg can promote, and columns that come and go."""
    assert problems(new, old) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [("long", "int"), ("int", "string"), (decimal(10, 2), decimal(12, 4))],
    ids=str,
)
def test_another_type_is_registered_and_told(old: object, new: object) -> None:
    """What to do with a new type is the lake's policy: the registry takes it, and the change can be put in words."""
    before, after = table(id="long", a=old), table(id="long", a=new)
    assert problems(after, before) == []
    assert changes(after, before).sentences() == [f"column a was {type_text(old)} and is {type_text(new)}"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (table(id="long"), replace(table(id="long", b="long"), key=("b",)), "the key was (id) and is (b)"),
        (table(id="long"), table(id="string"), "key column id was long and is string"),
        (table(id=decimal(10, 2)), table(id=decimal(12, 4)), "decimal(10,2) and is decimal(12,4)"),
    ],
)
def test_a_key_that_changes_is_refused(old: TableSchema, new: TableSchema, said: str) -> None:
    """The key says which rows are the same one: other columns, or another type, would make it another table."""
    (problem,) = problems(new, old)
    assert said in problem


def test_a_keys_type_may_widen_and_narrow_again() -> None:
    """The lake's column is the wider one from then on."""
    assert problems(table(id="long"), table(id="int")) == problems(table(id="int"), table(id="long")) == []


def test_changes_are_put_in_words() -> None:
    """A column that goes while another of its type comes may have been renamed, and the log says so."""
    said = changes(table(id="long", b="string", n="int"), table(id="long", a="string")).sentences()
    assert said == [
        "column a is gone: it stays, and is null from now on; if it was renamed to b, it keeps its old values",
        "column b (string) is new",
        "column n (int) is new",
    ]
