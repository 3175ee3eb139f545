"""What a query sees of Iceberg tables: columns by field id, tiers, versions, metadata tables."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from pyiceberg.schema import Schema
from pyiceberg.types import DecimalType, DoubleType, IntegerType, ListType, LongType, NestedField, StringType

from localaws.athena_errors import QueryError

PLAIN = Schema(NestedField(1, "id", LongType()), NestedField(2, "v", StringType()))
TIERED = Schema(NestedField(1, "id", LongType()), NestedField(2, "_tier", StringType()))


def test_a_table_without_a_snapshot_is_empty_and_has_its_types(lake: Any) -> None:
    """Before the first commit a table answers with no rows and with the types that it will have."""
    lake.create(
        "db.t",
        Schema(
            NestedField(1, "id", LongType()),
            NestedField(2, "d", DecimalType(10, 2)),
            NestedField(3, "l", ListType(4, StringType(), False)),
        ),
    )
    answer = lake.ask("SELECT * FROM t")
    assert answer.rows() == []
    assert [kind.text for kind in answer.types] == ["bigint", "decimal(10, 2)", "array(varchar)"]


def test_files_from_before_a_column_was_added_give_null(lake: Any) -> None:
    """Columns are found by their field id: a new one is NULL in old files, a renamed one keeps its values."""
    table = lake.create("db.t", PLAIN)
    lake.append("db.t", [{"id": 1, "v": "old"}])
    with table.update_schema() as change:
        change.add_column("added", DoubleType())
        change.rename_column("v", "renamed")
    lake.append("db.t", [{"id": 2, "renamed": "new", "added": 1.5}])
    assert lake.rows("SELECT id, renamed, added FROM t ORDER BY id") == [["1", "old", None], ["2", "new", "1.5"]]


def test_a_dropped_and_recreated_name_does_not_show_the_old_values(lake: Any) -> None:
    """The same name under another field id is another column."""
    table = lake.create("db.t", PLAIN)
    lake.append("db.t", [{"id": 1, "v": "old"}])
    with table.update_schema() as change:
        change.delete_column("v")
    with table.update_schema() as change:
        change.add_column("v", StringType())
    assert lake.rows("SELECT id, v FROM t") == [["1", None]]


def test_a_widened_column_reads_old_and_new_files(lake: Any) -> None:
    """An int that became a long and a decimal that got more digits read as the new type everywhere."""
    schema = Schema(NestedField(1, "n", IntegerType()), NestedField(2, "d", DecimalType(5, 2)))
    table = lake.create("db.t", schema)
    lake.append("db.t", [{"n": 1, "d": Decimal("1.25")}])
    with table.update_schema() as change:
        change.update_column("n", LongType())
        change.update_column("d", DecimalType(12, 2))
    lake.append("db.t", [{"n": 2**40, "d": Decimal("1234567890.25")}])
    answer = lake.ask("SELECT n, d FROM t ORDER BY n")
    assert [kind.text for kind in answer.types] == ["bigint", "decimal(12, 2)"]
    assert answer.rows() == [["1", "1.25"], [str(2**40), "1234567890.25"]]


@pytest.mark.parametrize(
    ("condition", "tiers"),
    [
        ("_tier = 'log'", ["log"]),
        ("'base' = _tier AND id >= 0", ["base"]),
        ("(_tier IN ('log', 'delta')) AND id >= 0", ["delta", "log"]),
        ("_tier IN ('log', 'base') AND _tier = 'base'", ["base"]),
        ("_tier = 'none'", []),
        ("_tier = 'log' OR id >= 0", ["base", "delta", "log"]),
        ("NOT _tier = 'log'", ["base", "delta"]),
        ("upper(_tier) = 'LOG'", ["log"]),
    ],
)
def test_conditions_on_the_tier_give_the_right_rows(lake: Any, condition: str, tiers: list[str]) -> None:
    """Whatever is pruned, the rows are those that the condition asks for."""
    lake.create("db.t", TIERED, "_tier")
    lake.append("db.t", [{"id": n, "_tier": tier} for n, tier in enumerate(["base", "delta", "log"])])
    assert lake.rows(f"SELECT _tier FROM t WHERE {condition} ORDER BY 1") == [[tier] for tier in tiers]


def test_files_of_other_tiers_are_not_read(lake: Any) -> None:
    """A tier that a query does not ask for costs it nothing: its files are not even there to be read."""
    lake.create("db.t", TIERED, "_tier")
    lake.append("db.t", [{"id": 1, "_tier": "log"}])
    log_bytes = lake.ask("SELECT count(*) FROM t").scanned_bytes
    lake.append("db.t", [{"id": n, "_tier": "base"} for n in range(1000)])
    for file in lake.iceberg.load_table("db.t").scan(row_filter="_tier = 'base'").plan_files():
        lake.remove(file.file.file_path)
    answer = lake.ask("SELECT a.id FROM t AS a WHERE a._tier IN ('log')")
    assert answer.rows() == [["1"]]
    assert answer.scanned_bytes == log_bytes
    with pytest.raises(QueryError, match="ICEBERG_CANNOT_OPEN_SPLIT"):
        lake.ask("SELECT * FROM t")


def test_a_tier_condition_of_another_table_prunes_nothing_here(lake: Any) -> None:
    """In a join a condition prunes only the table that it is about, and a condition of ON none."""
    lake.create("db.t", TIERED, "_tier")
    lake.create("db.u", PLAIN)
    lake.append("db.t", [{"id": 1, "_tier": "log"}, {"id": 2, "_tier": "base"}])
    lake.append("db.u", [{"id": 1, "v": "x"}, {"id": 2, "v": "y"}])
    joined = "SELECT a.id, b.id FROM t AS a JOIN t AS b ON a.id <> b.id WHERE a._tier = 'log'"
    assert lake.rows(joined) == [["1", "2"]]
    left = "SELECT u.id, t._tier FROM u LEFT JOIN t ON t.id = u.id AND t._tier = 'log' ORDER BY 1"
    assert lake.rows(left) == [["1", "log"], ["2", None]]


def test_time_travel_by_version_tag_and_time(lake: Any) -> None:
    """FOR VERSION AS OF takes a snapshot's number or a tag, FOR TIMESTAMP AS OF an instant; each has its columns."""
    table = lake.create("db.t", PLAIN)
    lake.append("db.t", [{"id": 1, "v": "a"}])
    first = lake.iceberg.load_table("db.t").current_snapshot()
    lake.iceberg.load_table("db.t").manage_snapshots().create_tag(first.snapshot_id, "kept").commit()
    table.refresh()
    with table.update_schema() as change:
        change.add_column("added", StringType())
    lake.append("db.t", [{"id": 2, "v": "b", "added": "x"}])
    assert lake.rows("SELECT * FROM t ORDER BY id") == [["1", "a", None], ["2", "b", "x"]]
    assert lake.rows(f"SELECT * FROM t FOR VERSION AS OF {first.snapshot_id}") == [["1", "a"]]
    assert lake.rows("SELECT * FROM t FOR VERSION AS OF 'kept'") == [["1", "a"]]
    assert lake.rows("SELECT count(*) FROM t FOR TIMESTAMP AS OF current_timestamp") == [["2"]]
    at_first = f"from_unixtime({first.timestamp_ms} / 1e3)"
    assert lake.rows(f"SELECT * FROM t FOR TIMESTAMP AS OF {at_first}") == [["1", "a"]]


@pytest.mark.parametrize(
    ("clause", "problem"),
    [
        ("FOR VERSION AS OF 5", "Iceberg snapshot ID does not exists: 5"),
        ("FOR VERSION AS OF 'none'", "Cannot find snapshot with reference name: none"),
        ("FOR TIMESTAMP AS OF TIMESTAMP '2001-01-01 00:00:00 UTC'", "No version history table at or before 2001"),
    ],
)
def test_time_travel_to_nowhere_says_so(lake: Any, clause: str, problem: str) -> None:
    """A version that the table does not know is refused, it is not empty."""
    lake.create("db.t", PLAIN)
    lake.append("db.t", [{"id": 1, "v": "a"}])
    with pytest.raises(QueryError, match=problem):
        lake.ask(f"SELECT * FROM t {clause}")


def test_time_travel_on_a_view_is_ignored(lake: Any) -> None:
    """As the engine does: a view has no versions."""
    lake.create("db.t", PLAIN)
    lake.append("db.t", [{"id": 1, "v": "a"}])
    lake.view("db.w", "SELECT id FROM t", id="bigint")
    assert lake.rows("SELECT * FROM w FOR VERSION AS OF 12345") == [["1"]]


METADATA_QUERIES: dict[str, Callable[[Any], list[list[str]]]] = {
    'SELECT snapshot_id, operation FROM "t$snapshots"': lambda table: [
        [str(each.snapshot_id), "append"] for each in table.metadata.snapshots
    ],
    'SELECT snapshot_id, is_current_ancestor FROM "t$history"': lambda table: [
        [str(each.snapshot_id), "true"] for each in table.metadata.snapshot_log
    ],
    'SELECT sum(record_count), count(*) FROM "t$files"': lambda table: [["3", "2"]],
    'SELECT file_count FROM "t$partitions" ORDER BY record_count': lambda table: [["1"], ["1"]],
    "SELECT value FROM \"t$properties\" WHERE key = 'owner'": lambda table: [["me"]],
    'SELECT name, type FROM "t$refs"': lambda table: [["main", "BRANCH"]],
    'SELECT sum(added_rows_count) FROM "t$manifests"': lambda table: [["3"]],
    "SELECT element_at(summary, 'total-records') FROM db.\"t$snapshots\" ORDER BY committed_at": lambda table: [
        ["2"],
        ["3"],
    ],
}


@pytest.mark.parametrize("query", METADATA_QUERIES)
def test_metadata_tables_tell_what_the_metadata_says(lake: Any, query: str) -> None:
    """Each of Trino's metadata tables can be queried beside the table."""
    table = lake.create("db.t", TIERED, "_tier")
    with table.transaction() as change:
        change.set_properties(owner="me")
    lake.append("db.t", [{"id": 1, "_tier": "log"}, {"id": 2, "_tier": "log"}])
    lake.append("db.t", [{"id": 3, "_tier": "base"}])
    assert lake.rows(query) == METADATA_QUERIES[query](lake.iceberg.load_table("db.t"))


def test_rows_deleted_by_position_are_not_seen(lake: Any) -> None:
    """A row-level delete that rewrites files is visible at once."""
    table = lake.create("db.t", PLAIN)
    lake.append("db.t", [{"id": n, "v": "x"} for n in range(5)])
    table.refresh()
    table.delete("id = 3")
    assert lake.rows("SELECT id FROM t ORDER BY id") == [["0"], ["1"], ["2"], ["4"]]


def test_files_without_field_ids_are_never_read_as_nulls(lake: Any, tmp_path: Any) -> None:
    """A file written by somebody else and added to the table is read by the table's name mapping."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = lake.create("db.t", PLAIN)
    path = tmp_path / "foreign.parquet"
    pq.write_table(pa.table({"id": pa.array([7], pa.int64()), "v": ["x"]}), path)
    table.add_files([f"file://{path}"])
    assert lake.rows("SELECT id, v FROM t") == [["7", "x"]]
