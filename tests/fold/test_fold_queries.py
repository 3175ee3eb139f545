"""The named queries of a source, each run in the laptop's Athena as it stands in the workgroup."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from glue_streaming import fold_job
from glue_streaming.holes_table import HolesTable
from glue_streaming.state import StreamState
from localaws.process import LocalAws
from ops import named_queries
from ops.aws import Aws
from ops.names import Names
from ops.provision import Deployment, save_queries

TITLES = [query.name.partition(": ")[2] for query in named_queries.of_source("x")]


@pytest.fixture(scope="module")
def saved() -> dict[str, Any]:
    return {}


@pytest.fixture
def lake(make_table: Any, complete_snapshot: Any, saved: dict[str, Any], local_aws: LocalAws) -> Any:
    """One table for all queries: a row changed, another deleted; with its views, and all queries saved."""
    if not saved:
        made = saved["lake"] = make_table()
        made.append([made.row("r", 9, 0, "staged", id=1, name="a")], {1: complete_snapshot(8, (10, 1))})
        made.append([made.row("u", 12, id=1, name="b"), made.row("c", 13, id=2, name="x"), made.row("d", 14, id=2)])
        for number in range(4):
            made.publish(20, 100.0 + 6 * number)
        assert fold_job.main(["--source", made.source, "--fold_horizon_seconds", "5"]) is None
        HolesTable(made.aws.catalog, "headrace-lake", made.source).update({"accounts": StreamState()})
        athena = local_aws.client("athena")
        athena.create_work_group(Name="queries")
        aws = Aws(local_aws.endpoint)
        for _ in range(2):
            save_queries(aws, Deployment(names=Names(), sources=(made.source,)), workgroup="queries")
        for found in athena.list_named_queries(WorkGroup="queries")["NamedQueryIds"]:
            query = athena.get_named_query(NamedQueryId=found)["NamedQuery"]
            assert query["Name"] not in saved
            saved[query["Name"]] = query
    return saved["lake"]


EXPECTED: dict[str, Any] = {
    "changes by hour": lambda rows: rows == [],
    "changes of a key": lambda rows: [row[0] for row in rows] == ["r", "u"],
    "deleted rows": lambda rows: [row[0] for row in rows] == ["d"],
    "freshness": lambda rows: rows[0][0] == "2026-01-01 00:00:00.000000" and int(rows[0][1]) > 0,
    "history of a key": lambda rows: (
        [(row[0], row[1], row[3]) for row in rows]
        == [
            ("2026-01-01 00:00:09.000000", "2026-01-01 00:00:12.000000", "a"),
            ("2026-01-01 00:00:12.000000", None, "b"),
        ]
    ),
    "most changed keys": lambda rows: [row[:2] for row in rows] == [["1", "2"], ["2", "2"]],
    "open holes": lambda rows: rows == [],
    "size of a table": lambda rows: {row[0]: row[2] for row in rows} == {"base": "1", "history": "4"},
    "state at a time": lambda rows: [(row[2], row[3]) for row in rows] == [("1", "b")],
}


@pytest.mark.parametrize("title", TITLES)
def test_a_named_query_answers(lake: Any, saved: dict[str, Any], athena: Any, title: str) -> None:
    """Put a table's name and a time, as its first line says, and it gives what it promises."""
    query = saved[f"{lake.source}: {title}"]
    assert query["Database"] == lake.source and query["QueryString"].startswith(f"-- {query['Description']}")
    sql = query["QueryString"].replace("my_table", "accounts").replace("'2026-01-01 00:00:00'", f"'{noon()}'")
    rows = sorted(athena(sql), key=str) if title == "most changed keys" else athena(sql)
    assert EXPECTED[title](rows), rows


def noon() -> str:
    return str(datetime(2026, 1, 1, 12))
