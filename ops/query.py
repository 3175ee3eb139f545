"""`headrace query "SELECT ..."`: one statement through Athena, here or on AWS."""

from __future__ import annotations

import csv
import io
import json

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ops.athena import Answer


def as_json(answer: Answer) -> str:
    """A list of objects; values stay the text that Athena printed."""
    names = [column.name for column in answer.columns]
    return json.dumps([dict(zip(names, row, strict=True)) for row in answer.rows], indent=1, ensure_ascii=False)


def as_csv(answer: Answer) -> str:
    """CSV with a header; NULL is an empty field, as in Athena's own results."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(column.name for column in answer.columns)
    writer.writerows(answer.rows)
    return buffer.getvalue().rstrip("\n")


def show(answer: Answer, console: Console) -> None:
    """A table for a person, with what the query cost below it."""
    view = Table(show_edge=False, pad_edge=False)
    numeric = ("integer", "bigint", "smallint", "tinyint", "double", "float", "real", "decimal")
    for column in answer.columns:
        view.add_column(Text(column.name), justify="right" if column.kind in numeric else "left")
    for row in answer.rows:
        view.add_row(*(Text("NULL", style="dim") if cell is None else Text(cell) for cell in row))
    console.print(view)
    console.print(
        f"{len(answer.rows)} rows, {answer.scanned_bytes:,} bytes scanned, {answer.seconds:.2f} s", style="dim"
    )
