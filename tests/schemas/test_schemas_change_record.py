"""Change-record schemas: derived, fingerprinted, compared."""

from dataclasses import replace

import pytest

from schemas.change_record import METADATA_FIELDS, Column, TableSchema, lake_column_names, lake_table_name
from schemas.compatibility import problems
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
    ("old", "new", "said"),
    [
        (table(id="long", a="long"), table(id="long", a="int"), "column a was long and is int"),
        (table(id="long", a="int"), table(id="long", a="string"), "column a was int and is string"),
        (table(id="long", a=decimal(10, 2)), table(id="long", a=decimal(12, 4)), "decimal(10,2) and is decimal(12,4)"),
        (table(id="long"), replace(table(id="long", b="long"), key=("b",)), "the key was (id) and is (b)"),
    ],
)
def test_changes_that_readers_cannot_follow_are_named(old: TableSchema, new: TableSchema, said: str) -> None:
    """Narrowing, another type, another scale, another key."""
    (problem,) = problems(new, old)
    assert said in problem
