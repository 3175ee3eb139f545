"""What each format's lines become: rows with types, and rejects with file, line and reason."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from producer.settings import FileTable
from tests.producer_files.conftest import Feed, rejects, rows, taken

Make = Callable[..., Feed]


def test_csv_with_declared_types(feed: Make) -> None:
    """Declared columns have their types, the others are texts; an empty field is null."""
    columns = {"id": "long", "paid": "boolean", "price": "decimal(10,2)", "day": "date", "at": "timestamptz"}
    source = feed(FileTable("orders", "*.csv", "csv", columns))
    source.drop(
        "a.csv", 'id,paid,price,day,at,note\n7,true,1.5,2024-02-29,2024-01-01T01:00:00+01:00,"two\nlines"\n8,,,,,\n'
    )
    first, second = rows(taken(source.capture()))
    assert (first["id"], first["paid"], first["price"], first["day"]) == (7, True, Decimal("1.50"), date(2024, 2, 29))
    assert (first["at"], first["note"]) == (datetime(2024, 1, 1, tzinfo=UTC), "two\nlines")
    assert [second[name] for name in ("paid", "price", "day", "at", "note")] == [None] * 5
    assert second["line_number"] == 4


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("x,1.00", "column id is long, which cannot be 'x'"),
        ("9223372036854775808,1.00", "column id is long, which cannot be '9223372036854775808'"),
        ("1,1.005", "column price is decimal(4,2), which cannot be '1.005'"),
        ("1,100.00", "column price is decimal(4,2), which cannot be '100.00'"),
        ("1", "1 values for 2 columns"),
        ("1,2,3", "3 values for 2 columns"),
        ('1,"2" x', "',' expected after '\"'"),
    ],
)
def test_a_bad_line_is_a_reject_that_names_file_and_line(feed: Make, line: str, reason: str) -> None:
    """The lines around it are loaded, in their places."""
    source = feed(FileTable("orders", "*.csv", "csv", {"id": "long", "price": "decimal(4,2)"}))
    source.drop("a.csv", f"id,price\n1,1.00\n{line}\n3,3.00\n")
    events = taken(source.capture())
    assert [(row["_idx"], row["id"]) for row in rows(events)] == [(0, 1), (2, 3)]
    (reject,) = rejects(events)
    assert (reject.reason, reject.position.idx) == (f"a.csv line 3: {reason}", 1)
    assert line.split(",")[0].encode() in (reject.raw or b"")


def test_bytes_that_are_not_of_the_encoding_are_a_reject(feed: Make) -> None:
    """With the line as it came."""
    source = feed(FileTable("orders", "*.csv", "csv"))
    source.drop("a.csv", b"id,name\n1,Z\xfcrich\n2,Basel\n")
    events = taken(source.capture())
    assert [row["id"] for row in rows(events)] == ["2"]
    assert (rejects(events)[0].reason, rejects(events)[0].raw) == ("a.csv line 2: not utf-8", b"1,Z\xfcrich\n")


def test_another_encoding_delimiter_null_and_no_header(feed: Make) -> None:
    table = FileTable(
        "orders", "*.csv", "csv", {"id": "int", "name": "string"}, "latin-1", delimiter=";", header=False, null="\\N"
    )
    source = feed(table)
    source.drop("a.csv", b"1;Z\xfcrich\n2;\\N\n3;\n")
    assert [row["name"] for row in rows(taken(source.capture()))] == ["Zürich", None, ""]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "there is no header"),
        ("id,id\n1,2\n", "the header names a column twice: id, id"),
        ("name\nx\n", "the header lacks id"),
    ],
)
def test_a_csv_file_without_its_header_is_rejected_whole(feed: Make, text: str, reason: str) -> None:
    source = feed(FileTable("orders", "*.csv", "csv", {"id": "long"}))
    source.drop("a.csv", text)
    events = taken(source.capture())
    assert (rows(events), [reject.reason for reject in rejects(events)]) == ([], [f"a.csv: {reason}"])


def test_json_lines_grow_the_table(feed: Make) -> None:
    """A column gets the type of its first value; one that cannot be it later is kept as text beside it."""
    source = feed(FileTable("events", "*.jsonl", "jsonl"))
    source.drop("a.jsonl", '{"id": 1, "ok": true}\n\n{"id": 2, "tags": ["a"], "x": 1.5}\n{"id": "three", "ok": null}\n')
    first, second, third = rows(taken(source.capture()))
    assert (first["id"], first["ok"], "tags" in first) == (1, True, False)
    assert (second["id"], second["tags"], second["x"], second["line_number"]) == (2, '["a"]', 1.5, 3)
    assert (third["id"], third["_raw"], third["ok"]) == (None, {"id": "three"}, None)


@pytest.mark.parametrize(
    ("line", "reason"), [("[1]", "a JSON object is expected"), ("{", "no JSON: "), ("1", "a JSON")]
)
def test_a_line_that_is_no_object_is_a_reject(feed: Make, line: str, reason: str) -> None:
    source = feed(FileTable("events", "*.jsonl", "jsonl"))
    source.drop("a.jsonl", f'{{"id": 1}}\n{line}\n{{"id": 2}}\n')
    events = taken(source.capture())
    assert [row["id"] for row in rows(events)] == [1, 2]
    assert rejects(events)[0].reason.startswith(f"a.jsonl line 2: {reason}")


def test_parquet_keeps_its_types(feed: Make, tmp_path: Path) -> None:
    """What Avro has no type for is text: nanoseconds, times, structs."""
    instant = datetime(2024, 5, 6, 7, 8, 9, 123456)
    table = pa.table(
        {
            "small": pa.array([1], pa.int16()),
            "huge": pa.array([2**64 - 1], pa.uint64()),
            "price": pa.array([Decimal("1.25")], pa.decimal128(9, 2)),
            "at": pa.array([instant], pa.timestamp("us", "UTC")),
            "local": pa.array([instant], pa.timestamp("ms")),
            "exact": pa.array([1_700_000_000_000_000_001], pa.timestamp("ns")),
            "part": pa.array([{"a": 1}]),
            "data": pa.array([b"\x00\xff"]),
            "none": pa.nulls(1),
        }
    )
    pq.write_table(table, tmp_path / "whole")
    source = feed(FileTable("facts", "*.parquet", "parquet"))
    source.drop("a.parquet", (tmp_path / "whole").read_bytes())
    (row,) = rows(taken(source.capture()))
    assert (row["small"], row["huge"], row["price"], row["data"]) == (1, 2**64 - 1, Decimal("1.25"), b"\x00\xff")
    assert (row["at"], row["local"]) == (instant.replace(tzinfo=UTC), instant.replace(microsecond=123000))
    assert (row["exact"], row["part"], row["none"]) == ("2023-11-14 22:13:20.000000001", '{"a": 1}', None)


def test_avro_keeps_its_types(feed: Make) -> None:
    fields = [
        {"name": "id", "type": "long"},
        {"name": "name", "type": ["null", "string"]},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "either", "type": ["long", "string"]},
    ]
    out = io.BytesIO()
    values = [{"id": n, "name": None, "day": date(2024, 1, n), "either": n} for n in (1, 2)]
    fastavro.writer(out, {"type": "record", "name": "r", "fields": fields}, values, sync_interval=1)
    source = feed(FileTable("facts", "*.avro", "avro"))
    source.drop("half.avro", out.getvalue()[:-10])
    source.drop("a.avro", out.getvalue())
    found = rows(taken(source.capture()))
    assert [(row["file_name"], row["id"], row["day"], row["either"]) for row in found] == [
        ("a.avro", 1, date(2024, 1, 1), "1"),
        ("a.avro", 2, date(2024, 1, 2), "2"),
    ]


def test_a_column_of_the_file_may_have_the_name_of_ours(feed: Make) -> None:
    source = feed(FileTable("orders", "*.csv", "csv"))
    source.drop("a.csv", "file_name,_lsn\nx,y\n")
    (row,) = rows(taken(source.capture()))
    assert (row["file_name"], row["file_name__2"], row["_lsn"], row["_lsn__2"]) == ("a.csv", "x", 8, "y")


def test_an_empty_line_is_nothing(feed: Make) -> None:
    """Programs end files with one; a value that is missing in a column of one is no row of nulls."""
    source = feed(FileTable("orders", "*.csv", "csv"))
    source.drop("a.csv", "id\n1\n\n2\n\n")
    events = taken(source.capture())
    assert ([row["id"] for row in rows(events)], rejects(events)) == (["1", "2"], [])
