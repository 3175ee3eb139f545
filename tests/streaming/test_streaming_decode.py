"""Avro datums become the lake's columns without losing a value."""

import io
import math
import threading
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from pyiceberg.schema import Schema

from glue_streaming import data_files, decode
from glue_streaming.lake_table import iceberg_schema
from schemas.change_record import Column, TableSchema
from schemas.errors import MalformedBlock

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
VALUES: dict[str, tuple[Any, Any]] = {
    "flag": ("boolean", True),
    "small": ("int", -(2**31)),
    "large": ("long", 2**63 - 1),
    "single": ("float", -1.5),
    "double": ("double", math.pi),
    "text": ("string", "späť\u0000💧"),
    "raw": ("bytes", b"\x00\xff"),
    "money": ({"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 4}, Decimal("-1234567890.1234")),
    "day": ({"type": "int", "logicalType": "date"}, date(1, 1, 1)),
    "zoned": ({"type": "long", "logicalType": "timestamp-micros"}, MOMENT),
    "local": ({"type": "long", "logicalType": "local-timestamp-micros"}, MOMENT.replace(tzinfo=None)),
    "numbers": ({"type": "array", "items": ["null", "int"]}, [1, None, 3]),
    "texts": ({"type": "array", "items": ["null", "string"]}, []),
}
METADATA: dict[str, Any] = {
    "_op": "u",
    "_era": 1,
    "_lsn": 2**62,
    "_idx": 3,
    "_committed_at": MOMENT,
    "_unchanged": ["text"],
    "_old_key": None,
    "_raw": {"money": "NaN"},
}


def table_schema(*names: str, **types: Any) -> TableSchema:
    chosen = {name: VALUES[name][0] for name in names} | types
    return TableSchema("shop", "t", tuple(Column(name, avro, name, "x") for name, avro in chosen.items()), ())


def datums(schema: TableSchema, rows: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    parsed = fastavro.parse_schema(schema.to_avro())
    for row in rows:
        fastavro.schemaless_writer(out, parsed, {**METADATA, **row})
    return out.getvalue()


def conformed(schema: TableSchema, lake: Schema, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    table = decode.to_arrow(schema.to_avro(), [(len(rows), datums(schema, rows))])
    return list(decode.conform(table, data_files.arrow_schema(lake), 7, "log").to_pylist())


def test_every_type_keeps_its_value() -> None:
    """A value of every Avro type of the contract, and its null, comes out as it went in; zoned times are in UTC."""
    schema = table_schema(*VALUES)
    full = {name: value for name, (_, value) in VALUES.items()}
    first, second = conformed(schema, iceberg_schema(schema), [full, {}])
    assert {name: first[name] for name in full} == {**full, "zoned": MOMENT.replace(tzinfo=None)}
    assert all(second[name] is None for name in full)
    assert (first["_op"], first["_lsn"], first["_unchanged"], first["_raw"]) == (
        "u",
        2**62,
        ["text"],
        [("money", "NaN")],
    )
    assert (first["_committed_at"], first["_batch"], first["_tier"]) == (MOMENT.replace(tzinfo=None), 7, "log")


def test_older_rows_fit_a_wider_table() -> None:
    """Rows of an older structure: new columns are null, promoted ones are widened."""
    old = table_schema(n="int", f="float")
    new = table_schema("text", n="long", f="double")
    (row,) = conformed(old, iceberg_schema(new), [{"n": 5, "f": 0.5}])
    assert (row["n"], row["f"], row["text"]) == (5, 0.5, None)


def test_fewer_datums_than_counted_are_refused() -> None:
    """The reader finds out by itself."""
    schema = table_schema("large")
    with pytest.raises(MalformedBlock):
        decode.to_arrow(schema.to_avro(), [(3, datums(schema, [{"large": 1}, {"large": 2}]))])


@pytest.mark.parametrize("count", [1, 3])
def test_a_wrong_count_does_not_verify(count: int) -> None:
    """More or fewer datums than the block counts are told before the fast reader sees them again."""
    schema = table_schema("large")
    with pytest.raises(MalformedBlock):
        decode.verify(schema.to_avro(), count, datums(schema, [{"large": 1}, {"large": 2}]))
    decode.verify(schema.to_avro(), 2, datums(schema, [{"large": 1}, {"large": 2}]))


def test_a_reader_that_does_not_return_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """DataFusion hangs where a reader would complain about bytes that are left over; the deadline ends the wait.

    What it reads from stays its own: the next reader's memory is another one.
    """
    released, hanging = threading.Event(), []

    def hang(memory: Any, data: Any) -> None:
        hanging.append(memory)
        released.wait(60)

    schema = table_schema("large")
    with monkeypatch.context() as patch:
        patch.setattr(decode._Memory, "read", hang)
        patch.setattr(decode, "_BASE_SECONDS", 0.05)
        with pytest.raises(decode.DecoderStuck):
            decode.to_arrow(schema.to_avro(), [(1, datums(schema, [{"large": 1}]))])
    assert hanging[0] not in decode._spare
    released.set()


def test_a_reader_sees_nothing_of_what_was_read_before() -> None:
    """The memory that it reads from is used again, for more rows and for fewer."""
    schema = table_schema("large", "text")
    for count in (1, 1_000, 3, 1_001):
        rows = [{"large": count * 10 + number, "text": "x" * count} for number in range(count)]
        found = decode.to_arrow(schema.to_avro(), [(count, datums(schema, rows))])
        assert found.select(["large", "text"]).to_pylist() == rows


def test_bytes_that_are_no_datums_are_refused() -> None:
    """Hostile bytes end in MalformedBlock and nowhere else."""
    with pytest.raises(MalformedBlock):
        decode.to_arrow(table_schema("text").to_avro(), [(1, b"\xff" * 40)])


def test_a_value_too_wide_for_its_column_is_refused() -> None:
    """A value that the lake's column cannot hold is a reason for a hole, not for a crash."""
    table = pa.table({"n": pa.array([2**40])})
    with pytest.raises(MalformedBlock, match="n"):
        decode.conform(table, pa.schema([pa.field("n", pa.int32())]), 1, "log")
