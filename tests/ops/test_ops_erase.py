"""What `headrace erase` says of a request."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from rich.console import Console

from glue_streaming.erasures import Erasure
from ops.erase import LastDates, Record, key_values, show
from ops.errors import NotApplicable
from schemas.position import Line

AT = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("done_at", "report", "said", "unsaid"),
    [
        ("2026-01-01", {"base_rows": 2}, "base rows: 2", "no row"),
        ("2026-01-01", {}, "no row of the key was found", "not done"),
        (None, None, "not done: rows wait", "no row of the key"),
    ],
    ids=["found", "nothing found", "waiting"],
)
def test_a_report_says_what_was_found(
    done_at: str | None, report: dict[str, int] | None, said: str, unsaid: str
) -> None:
    """A key that was mistyped is seen to have matched nothing; while rows wait nobody knows yet."""
    console = Console(file=io.StringIO(), width=200)
    record = Record("erasure:1", "t", Erasure(("id",), "d", "o", Line(1, 5)), "2026-01-01", "anna", done_at, report)
    show(record, LastDates(AT, AT, None, AT, None), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert said in text and unsaid not in text
    assert "if the source still has the row, the lake lacks it" in text


def test_a_key_of_one_column_is_no_wrong_column() -> None:
    """What stands before a = looks like a column that the table has not: refused, with how such a value is given."""
    types = {"path": pa.string(), "size": pa.int64()}
    for given, value in (("7", "7"), ("path=a=b", "a=b"), ("a@b.c=1", "a@b.c=1"), ("=", "=")):
        assert key_values([given], ["path"], types) == {"path": value}
    with pytest.raises(NotApplicable, match=r"no column PATH: .* as in --key path=PATH=1"):
        key_values(["PATH=1"], ["path"], types)
    with pytest.raises(NotApplicable, match=r"--key path=\.\.\."):
        key_values(["size=1"], ["path"], types)
