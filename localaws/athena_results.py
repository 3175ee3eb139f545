"""Results as Athena hands them out: the object on S3, and the pages of GetQueryResults."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv

from .athena_engine import Answer
from .athena_types import TrinoType

Row = list[str | None]

_PRECISIONS = {
    "bigint": 19, "integer": 10, "smallint": 5, "tinyint": 3, "double": 17, "float": 17, "timestamp": 3,
    "timestamp with time zone": 3, "varbinary": 1073741824, "varchar": 2147483647,
}  # fmt: skip
MAX_ROWS = 1000


def column_info(name: str, kind: TrinoType) -> dict[str, Any]:
    """A column in ResultSetMetadata: the bare type name, a decimal's digits in Precision and Scale."""
    base = "float" if kind.base == "real" else kind.base
    precision, scale = kind.arguments if base == "decimal" else (_PRECISIONS.get(base, 0), 0)
    return {
        "CatalogName": "hive", "SchemaName": "", "TableName": "", "Name": name, "Label": name, "Type": base,
        "Precision": precision, "Scale": scale, "Nullable": "UNKNOWN", "CaseSensitive": base in ("varchar", "char"),
    }  # fmt: skip


def csv_object(answer: Answer) -> bytes:
    """The result file of a query: every value quoted, NULL as nothing between the commas."""
    out = io.StringIO()
    out.write(",".join(_quoted(name) for name in answer.columns) + "\n")
    quoted = [["" if text is None else _quoted(text) for text in texts] for texts in answer.texts]
    out.writelines(",".join(row) + "\n" for row in zip(*quoted, strict=True))
    return out.getvalue().encode()


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def text_object(answer: Answer) -> bytes:
    """The result file of SHOW, DESCRIBE and EXPLAIN: lines, columns apart by tabs, no header."""
    return "".join("\t".join(text or "" for text in row) + "\n" for row in answer.rows()).encode()


def parse_csv(content: bytes, width: int) -> list[Row]:
    """The rows of a result file that `csv_object` wrote."""
    names = [str(position) for position in range(width)]
    table = pacsv.read_csv(
        io.BytesIO(content),
        pacsv.ReadOptions(column_names=names, skip_rows=1, block_size=max(len(content), 1) + 1),
        pacsv.ParseOptions(newlines_in_values=True, double_quote=True, ignore_empty_lines=width != 1),
        pacsv.ConvertOptions(
            column_types={name: pa.string() for name in names},
            strings_can_be_null=True, quoted_strings_can_be_null=False, null_values=[""],
        ),
    )  # fmt: skip
    return [list(row) for row in zip(*(column.to_pylist() for column in table.columns), strict=True)]


def parse_text(content: bytes) -> list[Row]:
    """The rows of a result file that `text_object` wrote."""
    return [[text or None for text in line.split("\t")] for line in content.decode().split("\n")[:-1]]


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a result: `token` asks for the next one, None at the end."""

    rows: Sequence[Row]
    token: str | None


def page(rows: Sequence[Row], header: Row | None, token: str | None, max_results: int) -> Page:
    """At most `max_results` rows, the header counted as the first. Raises ValueError for a token that was not given."""
    start = int(token or 0)
    every = 1 if header is not None else 0
    total = len(rows) + every
    if not 0 <= start <= total:
        raise ValueError(f"no page begins at {start}")
    stop = min(start + max_results, total)
    found = [header] if header is not None and start == 0 else []
    found.extend(rows[max(start - every, 0) : stop - every])
    return Page(found, str(stop) if stop < total else None)


def result_set(shown: Page, columns: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The body of GetQueryResults. A NULL is a Datum without VarCharValue."""
    rows = [{"Data": [{} if text is None else {"VarCharValue": text} for text in row]} for row in shown.rows]
    body: dict[str, Any] = {
        "UpdateCount": 0, "ResultSet": {"Rows": rows, "ResultSetMetadata": {"ColumnInfo": list(columns)}},
    }  # fmt: skip
    if shown.token:
        body["NextToken"] = shown.token
    return body
