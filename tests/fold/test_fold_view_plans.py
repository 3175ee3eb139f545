"""What the views read: DuckDB's plans and counts over the real files of a folded table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from glue_streaming import view_current
from glue_streaming.fold.shape import Shape
from schemas.change_record import Column
from schemas.position import Line
from tests.fold.local_lake import LocalLake, in_duckdb, lake_row, schema_of

AT = datetime(2026, 1, 1)
COLUMNS = (Column("id", "long", "id", "bigint"), Column("n", "int", "n", "integer"))
ROWS = 5_000
Scan = tuple[str, int]
"""What a scan of the files keeps by, and how many rows it gave on."""


@pytest.fixture(params=["whole values", "values left out"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> LocalLake:
    """Rows in all tiers: each thousandth of base was changed in delta, and one row in the log; no value is left out."""
    columns = (*COLUMNS, Column("doc", "string", "doc", "text")) if request.param == "values left out" else COLUMNS
    made = LocalLake(*schema_of(columns, ("id",)), tmp_path)
    made.append("log", [lake_row(1, n + 1, 0, "c", {"id": n, "n": n}, AT) for n in range(ROWS)])
    made.fold(Line(1, ROWS), major=True)
    made.append("log", [lake_row(1, ROWS + 1, n, "u", {"id": n, "n": -n}, AT) for n in range(0, ROWS, 1000)])
    made.fold(Line(1, ROWS + 1), major=False)
    made.append("log", [lake_row(1, ROWS + 2, 0, "u", {"id": 7, "n": -7}, AT)])
    assert made.rows("delta") and made.rows("base")
    return made


@pytest.mark.parametrize("view", [view_current.current, view_current.cut])
@pytest.mark.parametrize("key", [7, 1000, 1001])
def test_a_condition_on_the_key_reaches_every_scan_that_grows_with_the_table(
    lake: LocalLake, view: Callable[[Shape], str], key: int
) -> None:
    """Each scan of rows that go into the answer is told the key; the others find truncates and key changes."""
    rows, scans = looked_up(lake, view(lake.shape), f"id = {key}")
    assert rows == [(key, -key if key != 1001 else key)]
    told = [kept for kept, _ in scans if f"(id = {key})" in kept]
    for tiers in ("_tier = 'log'", "_tier = 'delta'", "_tier = 'base'", "IN ('log', 'delta')"):
        assert [kept for kept in told if tiers in kept], f"no scan of {tiers} is told the key: {scans}"
    assert len(told) == (7 if lake.shape.torn else 5)
    assert sum(given for _, given in scans) < ROWS


def test_nothing_is_looked_up_for_values_left_out_where_there_are_none(lake: LocalLake) -> None:
    """The scans of all tiers give on one chunk at most; where there is a row of the kind they read for that key."""
    if not lake.shape.torn:
        return
    _, scans = looked_up(lake, view_current.current(lake.shape), "TRUE")
    assert all_tiers(scans) <= 2 * 2048
    left_out = lake_row(1, ROWS + 3, 0, "u", {"id": 1001, "n": -1}, AT, ["doc"])
    lake.append("log", [left_out])
    rows, scans = looked_up(lake, view_current.current(lake.shape), "n = -1")
    assert rows == [(1001, -1)] and all_tiers(scans) <= 2 * 2048


def test_a_key_that_left_a_value_out_is_looked_up_by_itself(lake: LocalLake) -> None:
    """Among many such rows: of base as of delta only what the key's own row groups hold is given on."""
    if not lake.shape.torn:
        return
    rows = [lake_row(1, ROWS + 3, n, "u", {"id": n, "n": -2}, AT, ["doc"]) for n in range(0, ROWS, 2)]
    lake.append("log", rows)
    rows, scans = looked_up(lake, view_current.current(lake.shape), "id = 1002")
    assert rows == [(1002, -2)]
    assert sum(given for kept, given in scans if "(id = 1002)" in kept) <= 7


def test_a_watermark_below_the_fold_line_shows_each_key_once(lake: LocalLake) -> None:
    """It never should be: the view then shows the state at the line, neither older rows beside it nor log rows."""
    rows = lake.query(view_current.cut(lake.shape), Line(1, ROWS // 2))
    assert sorted(row[:2] for row in rows) == [(n, n if n % 1000 else -n) for n in range(ROWS)]


def all_tiers(scans: list[Scan]) -> int:
    """What the two scans that look for left out values in all tiers gave on."""
    given = [rows for kept, rows in scans if "'base'))" in kept]
    assert len(given) == 2
    return sum(given)


def looked_up(lake: LocalLake, view: str, where: str) -> tuple[list[tuple[Any, ...]], list[Scan]]:
    """id and n of the rows, and the scans that gave them."""
    connection = duckdb.connect(config={"threads": 1})
    connection.execute("CREATE SCHEMA shop_lake; CREATE SCHEMA shop_cut")
    paths = [path for tier in ("log", "delta", "base", "history") for path in lake.paths(tier)]
    files = ", ".join(f"'{path}'" for path in paths)
    connection.execute(f"CREATE VIEW shop_lake.t AS SELECT * FROM read_parquet([{files}])")
    connection.execute(f"CREATE VIEW shop_cut.watermark AS SELECT 1 AS era, CAST({ROWS + 2} AS BIGINT) AS lsn")
    query = f"SELECT id, n FROM ({in_duckdb(view)}) AS v WHERE {where}"
    (((_, plan),)) = connection.execute(f"EXPLAIN (ANALYZE, FORMAT json) {query}").fetchall()
    return connection.execute(query).fetchall(), list(_scans(json.loads(plan)["operator"]))


def _scans(operators: list[dict[str, Any]]) -> Iterator[Scan]:
    for operator in operators:
        if operator["extra_info"].get("Function") == "READ_PARQUET":
            yield str(operator["extra_info"].get("Filters")), operator["intermediate_rows"]
        yield from _scans(operator.get("children", []))
