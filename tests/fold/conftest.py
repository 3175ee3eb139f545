"""One local AWS for the folder's tests, and a lake of its own for each."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from glue_streaming import commit, data_files, lake_table
from glue_streaming.aws import Aws
from glue_streaming.state import EndedGroup, SnapshotState, stream_state
from localaws.process import LocalAws, running
from ops.names import DYNAMODB_KEYS
from ops.provision import dynamodb_table
from schemas.change_record import Column, TableSchema
from schemas.position import Line

START = datetime(2026, 1, 1)
DATABASES = ("", "_cut", "_history", "_lake")


@pytest.fixture
def in_folder() -> Iterator[Callable[[], Path]]:
    """A new folder at each call: a property plays many histories in one test."""
    folders: list[str] = []

    def make() -> Path:
        folders.append(tempfile.mkdtemp())
        return Path(folders[-1])

    yield make
    for folder in folders:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def local_aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setenv("SFN_WAIT_SCALE", "0.02")  # nobody waits here longer than the jobs need
        aws = stack.enter_context(running(tmp_path_factory.mktemp("localaws")))
        for name, value in aws.environment().items():
            patch.setenv(name, value)
        aws.client("s3").create_bucket(Bucket="headrace-lake")
        for table in DYNAMODB_KEYS:
            dynamodb_table(aws.client("dynamodb"), table, f"headrace-{table}")
        yield aws


@dataclass
class LakeTable:
    """Plays the streaming job for one table: appends rows, announces snapshots, publishes lines."""

    aws: Aws
    source: str
    table: str
    schema: TableSchema
    published: list[list[Any]] = field(default_factory=list)

    @property
    def identifier(self) -> str:
        return lake_table.identifier(self.source, self.table)

    def load(self) -> Any:
        return self.aws.catalog.load_table(self.identifier)

    def row(self, op: str, lsn: int, idx: int = 0, tier: str = "log", **values: Any) -> dict[str, Any]:
        return {
            "_op": op, "_era": 1, "_lsn": lsn, "_idx": idx, "_committed_at": START + timedelta(seconds=lsn),
            "_batch": 1, "_tier": tier, **values,
        }  # fmt: skip

    def append(self, rows: Sequence[dict[str, Any]], snapshots: dict[int, SnapshotState] | None = None) -> None:
        table = self.load()
        arrow = data_files.arrow_schema(table.schema())
        files, logged = [], []
        for tier in sorted({row["_tier"] for row in rows}):
            part = pa.Table.from_pylist([row for row in rows if row["_tier"] == tier], schema=arrow)
            written = data_files.write(part, schema=table.schema(), location=table.location(), tier=tier, io=table.io)
            assert written is not None
            files.append(written)
            logged += [written] if tier == "log" else []
        old = stream_state(table.properties)
        new = replace(
            old,
            totals=old.totals.plus(sum(f.rows for f in logged), sum(f.size for f in logged), len(logged)),
            snapshots={**old.snapshots, **(snapshots or {})},
        )
        commit.append(table, [f.to_data_file() for f in files], expected=old, new=new)

    def publish(self, lsn: int, at: float) -> None:
        """The watermark, and this table's line, at (1, lsn)."""
        glue = self.aws.client("glue")
        self.published.append([1, lsn, at])
        sql = (
            f"SELECT * FROM (VALUES (1, BIGINT '{lsn}', TIMESTAMP '2026-01-01 00:00:00')) AS t (era, lsn, committed_at)"
        )
        columns = (
            ("era", "int", "integer"),
            ("lsn", "bigint", "bigint"),
            ("committed_at", "timestamp", "timestamp(6)"),
        )
        entry = presto_view(f"{self.source}_cut", "watermark", sql, columns)
        entry["Parameters"] |= {
            "headrace.ring": json.dumps(self.published),
            "headrace.lines": json.dumps({self.table: [1, lsn]}),
            "headrace.excluded": "[]",
        }
        write = glue.update_table if len(self.published) > 1 else glue.create_table
        write(DatabaseName=f"{self.source}_cut", TableInput=entry)

    def rows(self, tier: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.load().scan(row_filter=f"_tier = '{tier}'").to_arrow().to_pylist()
        return sorted(found, key=lambda r: (r["_lsn"], r["_idx"]))

    def state(self) -> dict[Any, Any]:
        from glue_streaming.state import fold_state

        return vars(fold_state(self.load().properties))


def presto_view(database: str, name: str, sql: str, columns: Sequence[tuple[str, str, str]]) -> dict[str, Any]:
    import base64

    document = {
        "originalSql": sql, "catalog": "awsdatacatalog", "schema": database, "runAsInvoker": True,
        "columns": [{"name": n, "type": t} for n, _, t in columns],
    }  # fmt: skip
    return {
        "Name": name, "TableType": "VIRTUAL_VIEW",
        "Parameters": {"presto_view": "true", "comment": "Presto View"},
        "ViewOriginalText": f"/* Presto View: {base64.b64encode(json.dumps(document).encode()).decode()} */",
        "ViewExpandedText": "/* Presto View */",
        "StorageDescriptor": {"Columns": [{"Name": n, "Type": h} for n, h, _ in columns], "SerdeInfo": {}},
    }  # fmt: skip


@pytest.fixture
def make_table(local_aws: LocalAws) -> Any:
    """Makes the lake table of a new source: id, name, doc; keyed by id unless told otherwise."""

    def make(key: tuple[str, ...] = ("id",), *, whole_rows: bool = False) -> LakeTable:
        source = f"s{uuid.uuid4().hex[:8]}"
        columns = (
            Column("id", "long", "id", "bigint"),
            Column("name", "string", "name", "text"),
            Column(
                "amount", {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}, "amount", "numeric"
            ),
        )
        schema = TableSchema(source, "accounts", columns, key, whole_rows=whole_rows)
        for suffix in DATABASES:
            local_aws.client("glue").create_database(DatabaseInput={"Name": f"{source}{suffix}"})
        aws = Aws()
        lake_table.ensure(aws.catalog, schema, "headrace-lake")
        return LakeTable(aws, source, "accounts", schema)

    return make


def ended(low: int, *groups: tuple[int, int]) -> SnapshotState:
    """A complete snapshot of groups given as (consistent point, count)."""
    return SnapshotState(
        low=low, groups=len(groups), era=1,
        ended={n: EndedGroup(1, c, None, None, count) for n, (c, count) in enumerate(groups)},
    )  # fmt: skip


@pytest.fixture
def complete_snapshot() -> Any:
    return ended


@pytest.fixture
def athena(local_aws: LocalAws) -> Any:
    """Runs a query to its end: its rows as texts, or its error."""
    client = local_aws.client("athena")

    def query(sql: str) -> list[list[str | None]]:
        started = client.start_query_execution(
            QueryString=sql, ResultConfiguration={"OutputLocation": "s3://headrace-lake/results/"}
        )
        query_id = started["QueryExecutionId"]
        while True:
            status = client.get_query_execution(QueryExecutionId=query_id)["QueryExecution"]["Status"]
            if status["State"] not in ("QUEUED", "RUNNING"):
                break
        if status["State"] != "SUCCEEDED":
            raise AssertionError(status.get("StateChangeReason"))
        rows = client.get_query_results(QueryExecutionId=query_id)["ResultSet"]["Rows"][1:]
        return [[item.get("VarCharValue") for item in row["Data"]] for row in rows]

    return query


NOW = datetime(2026, 1, 2, tzinfo=UTC)
LINE = Line
FOLDER = Path(__file__).parent
