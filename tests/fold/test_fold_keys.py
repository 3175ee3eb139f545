"""Keys of every type, nulls among them, through minor and major folds in one part and in many."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from glue_streaming.fold.ranges import WHOLE
from schemas.change_record import Column
from schemas.position import Line
from tests.fold.local_lake import MANY_PARTS, LocalLake, Row, lake_row, schema_of

START = datetime(2026, 1, 1)
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 3}
KEYS: dict[str, tuple[list[Any], Callable[[int], tuple[Any, ...]]]] = {
    "int": (["int"], lambda n: (n - 15,)),
    "decimal": ([DECIMAL], lambda n: (Decimal(n - 15) * Decimal("1000000000.001"),)),
    "timestamp": (
        [{"type": "long", "logicalType": "local-timestamp-micros"}],
        lambda n: (datetime(1969, 12, 20) + timedelta(days=n, microseconds=n),),
    ),
    "date": ([{"type": "int", "logicalType": "date"}], lambda n: (date(1969, 12, 20) + timedelta(days=n),)),
    "uuid": (["string"], lambda n: (str(UUID(int=n * 7**40 % 2**128)),)),
    "text": (["string"], lambda n: (["", "a", "a'b", "ä", "z", "\U0001f600", "B", "é\u0301"][n % 8] + str(n // 8),)),
    "bytes": (["bytes"], lambda n: (bytes([n * 37 % 256]) * (n % 3 + 1) + bytes([n]),)),
    "boolean": (["boolean", "int"], lambda n: (n % 2 == 0, n // 2)),
    "double": (["double"], lambda n: ([float("nan"), float("inf"), -float("inf"), 0.5][n] if n < 4 else n / 3,)),
    "composite": (["int", "string", "long"], lambda n: (n % 3, "xy"[n % 2], n // 6)),
    "with nulls": (
        ["int", "string"],
        lambda n: (None if n % 5 == 0 else n % 3, None if n in (0, 7, 14, 21) else f"k{n}"),
    ),
}


@pytest.mark.parametrize("name", KEYS)
def test_folds_keep_exactly_the_newest_row_of_every_key(name: str, tmp_path: Path) -> None:
    """After every fold, minor or major: delta over base is the model, and no key is in either twice."""
    types, key_of = KEYS[name]
    columns = [Column(f"k{n}", avro, f"k{n}", "") for n, avro in enumerate(types)]
    schema, shape = schema_of([*columns, Column("n", "long", "n", "bigint")], [column.name for column in columns])
    lake = LocalLake(schema, shape, tmp_path, MANY_PARTS)
    rng, model, lsn = random.Random(3), dict[int, int](), 0
    cut = False
    for turn in range(4):
        rows: list[Row] = []
        for _ in range(40):
            lsn, number = lsn + 1, rng.randrange(30)
            op = "d" if number in model and rng.random() < 0.25 else "u" if number in model else "c"
            model = {k: v for k, v in model.items() if k != number} | ({number: lsn} if op != "d" else {})
            values = dict(zip(shape.key, key_of(number), strict=True)) | ({"n": lsn} if op != "d" else {})
            rows.append(lake_row(1, lsn, 0, op, values, START + timedelta(seconds=lsn)))
        lake.append("log", rows)
        layout = lake.fold(Line(1, lsn), major=turn % 2 == 0)
        cut = cut or any(part.keys != WHOLE for part in layout.parts)
        state = {repr(_key(row, lake)): row["n"] for row in (*lake.rows("base"), *lake.rows("delta"))}
        live = {repr(key_of(number)): n for number, n in model.items()}
        assert {key: n for key, n in state.items() if n is not None} == live, turn
    assert cut or name in ("double", "boolean", "with nulls"), "the work was never cut"


def test_a_column_that_came_late_is_null_in_older_rows(tmp_path: Path) -> None:
    """Files without it are merged with files that have it."""
    key, name, late = (Column(c, t, c, "") for c, t in (("id", "long"), ("name", "string"), ("late", "string")))
    old_schema, old_shape = schema_of([key, name], ["id"])
    lake = LocalLake(old_schema, old_shape, tmp_path)
    lake.append("log", [lake_row(1, n, 0, "c", {"id": n, "name": f"n{n}"}, START) for n in (1, 2)])
    lake.fold(Line(1, 2), major=True)
    lake.schema, lake.shape = schema_of([key, name, late], ["id"])
    lake.append("log", [lake_row(1, 3, 0, "u", {"id": 2, "name": "two", "late": "x"}, START)])
    lake.files = [file for file in lake.files if file.tier != "history"]
    lake.check = lambda: None  # type: ignore[method-assign]  # it reads files by the newest names
    for major in (False, True):
        lake.fold(Line(1, 3), major=major)
    found = {row["id"]: (row["name"], row["late"]) for row in lake.rows("base")}
    assert found == {1: ("n1", None), 2: ("two", "x")}


def _key(row: Row, lake: LocalLake) -> tuple[Any, ...]:
    return tuple(row[name] for name in lake.shape.key)


def test_a_part_reads_only_the_log_files_that_may_hold_a_key_of_its_range(tmp_path: Path) -> None:
    """A file of keys of two ranges is read for both; what is merged is the same."""
    schema, shape = schema_of([Column(name, "long", name, "bigint") for name in ("id", "n")], ("id",))
    lake = LocalLake(schema, shape, tmp_path, MANY_PARTS)
    rows = [lake_row(1, 1, n, "c", {"id": n, "n": 0}, START) for n in range(200)]
    lake.append("base", rows[:100])
    lake.append("base", rows[100:])
    for lsn, keys in ((2, (5, 7)), (3, (150,)), (4, (20, 170))):
        lake.append("log", [lake_row(1, lsn, key, "u", {"id": key, "n": lsn}, START) for key in keys])
    low, high, both = [f"file://{path}" for path in lake.paths("log")]
    layout = lake.fold(Line(1, 4), major=True)
    assert [part.files["log"] for part in layout.parts] == [(low, both), (high, both)]
    changed = {row["id"]: row["n"] for row in lake.rows("base") if row["n"]}
    assert changed == {5: 2, 7: 2, 150: 3, 20: 4, 170: 4} and len(lake.rows("base")) == 200
    assert len(lake.rows("history")) == 5
