"""Athena's operations of the running server, over its own Glue catalog and S3."""

import time
from collections.abc import Iterator
from typing import Any

import botocore.exceptions
import pyarrow as pa
import pytest
from pyiceberg.catalog.glue import GlueCatalog

from localaws.process import LocalAws, running

pytestmark = pytest.mark.slow
FINAL = ("SUCCEEDED", "FAILED", "CANCELLED")


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with running(tmp_path_factory.mktemp("state")) as server:
        for bucket in ("lake", "results", "elsewhere"):
            server.client("s3").create_bucket(Bucket=bucket)
        lake = catalog(server)
        lake.create_namespace("db")
        schema = pa.schema([("id", pa.int64()), ("v", pa.string())])
        table = lake.create_table("db.t", schema, location="s3://lake/db/t")
        table.append(pa.table({"id": [1, 2, 3], "v": ["a", None, ""]}))
        yield server


def catalog(aws: LocalAws) -> GlueCatalog:
    keys = {"access-key-id": "test", "secret-access-key": "test", "region": "us-east-1", "endpoint": aws.endpoint}
    return GlueCatalog(
        "lake", **{f"{service}.{key}": value for service in ("glue", "s3") for key, value in keys.items()}
    )


def start(aws: LocalAws, sql: str, output: str = "s3://results/x", **options: Any) -> str:
    request = {
        "QueryString": sql,
        "QueryExecutionContext": {"Database": "db"},
        "ResultConfiguration": {"OutputLocation": output},
    }
    started: str = aws.client("athena").start_query_execution(**{**request, **options})["QueryExecutionId"]
    return started


def finished(aws: LocalAws, query_id: str) -> dict[str, Any]:
    client = aws.client("athena")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        execution: dict[str, Any] = client.get_query_execution(QueryExecutionId=query_id)["QueryExecution"]
        if execution["Status"]["State"] in FINAL:
            return execution
        time.sleep(0.01)
    raise AssertionError(f"query {query_id} did not end")


def rows(aws: LocalAws, query_id: str, **options: Any) -> list[list[str | None]]:
    result = aws.client("athena").get_query_results(QueryExecutionId=query_id, **options)
    return [[datum.get("VarCharValue") for datum in row["Data"]] for row in result["ResultSet"]["Rows"]]


def test_a_query_gives_rows_a_result_object_and_statistics(aws: LocalAws) -> None:
    """The header comes first, NULL is a Datum without a value, and the CSV lies where OutputLocation says."""
    execution = finished(aws, query_id := start(aws, "SELECT id, v FROM t ORDER BY id"))
    assert execution["Status"]["State"] == "SUCCEEDED"
    assert execution["StatementType"] == "DML"
    assert rows(aws, query_id) == [["id", "v"], ["1", "a"], ["2", None], ["3", ""]]
    location = execution["ResultConfiguration"]["OutputLocation"]
    assert location == f"s3://results/x/{query_id}.csv"
    stored = aws.client("s3").get_object(Bucket="results", Key=f"x/{query_id}.csv")["Body"].read()
    assert stored == b'"id","v"\n"1","a"\n"2",\n"3",""\n'
    statistics = execution["Statistics"]
    (file,) = catalog(aws).load_table("db.t").scan().plan_files()
    assert statistics["DataScannedInBytes"] == file.file.file_size_in_bytes
    assert statistics["TotalExecutionTimeInMillis"] >= statistics["EngineExecutionTimeInMillis"]
    assert statistics["EngineExecutionTimeInMillis"] >= statistics["QueryPlanningTimeInMillis"]


def test_the_result_says_each_columns_type(aws: LocalAws) -> None:
    query_id = start(aws, "SELECT id, CAST(1.5 AS decimal(12,3)) AS d, ARRAY[v] AS l FROM t")
    finished(aws, query_id)
    result = aws.client("athena").get_query_results(QueryExecutionId=query_id)["ResultSet"]
    shown = [(c["Name"], c["Type"], c["Precision"], c["Scale"]) for c in result["ResultSetMetadata"]["ColumnInfo"]]
    assert shown == [("id", "bigint", 19, 0), ("d", "decimal", 12, 3), ("l", "array", 0, 0)]


def test_a_failed_query_tells_the_reason(aws: LocalAws) -> None:
    execution = finished(aws, query_id := start(aws, "SELECT * FROM gone"))
    reason = "TABLE_NOT_FOUND: line 1:15: Table 'awsdatacatalog.db.gone' does not exist"
    assert (execution["Status"]["State"], execution["Status"]["StateChangeReason"]) == ("FAILED", reason)
    assert execution["Status"]["AthenaError"]["ErrorMessage"] == reason
    with pytest.raises(botocore.exceptions.ClientError, match="Final query state: FAILED"):
        rows(aws, query_id)


def test_results_come_in_pages_of_at_most_a_thousand_rows(aws: LocalAws) -> None:
    """The paginator collects the header and every row once."""
    query_id = start(aws, "SELECT x FROM UNNEST(sequence(1, 2500)) AS u (x) ORDER BY x")
    finished(aws, query_id)
    pages = list(aws.client("athena").get_paginator("get_query_results").paginate(QueryExecutionId=query_id))
    sizes = [len(page["ResultSet"]["Rows"]) for page in pages]
    found = [row["Data"][0]["VarCharValue"] for page in pages for row in page["ResultSet"]["Rows"]]
    assert sizes == [1000, 1000, 501]
    assert found == ["x", *(str(number) for number in range(1, 2501))]


PAIRS = "UNNEST(sequence(1, 100000)) AS a (x), UNNEST(sequence(1, 1000000)) AS b (y)"
ENDLESS = f"SELECT count(*) FROM {PAIRS} WHERE x * y = 5"


def test_a_stopped_query_is_cancelled(aws: LocalAws) -> None:
    query_id = start(aws, ENDLESS)
    aws.client("athena").stop_query_execution(QueryExecutionId=query_id)
    assert finished(aws, query_id)["Status"]["State"] == "CANCELLED"
    assert finished(aws, start(aws, "SELECT 1"))["Status"]["State"] == "SUCCEEDED"


def test_the_workgroups_location_is_used_and_may_be_enforced(aws: LocalAws) -> None:
    """Without a location of its own a query writes to the workgroup's; an enforcing workgroup always wins."""
    configuration = {"ResultConfiguration": {"OutputLocation": "s3://elsewhere/w/"}}
    client = aws.client("athena")
    for name, enforced in (("free", False), ("strict", True)):
        client.create_work_group(Name=name, Configuration={**configuration, "EnforceWorkGroupConfiguration": enforced})
    asked = start(aws, "SELECT 1", WorkGroup="free")
    bare = start(aws, "SELECT 1", WorkGroup="free", ResultConfiguration={})
    forced = start(aws, "SELECT 1", WorkGroup="strict")
    places = [finished(aws, each)["ResultConfiguration"]["OutputLocation"] for each in (asked, bare, forced)]
    assert places == [f"s3://results/x/{asked}.csv", f"s3://elsewhere/w/{bare}.csv", f"s3://elsewhere/w/{forced}.csv"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"WorkGroup": "none"}, "WorkGroup none is not found"),
        ({"ResultConfiguration": {}}, "No output location provided"),
    ],
)
def test_a_query_that_cannot_start_is_refused(aws: LocalAws, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(botocore.exceptions.ClientError, match=problem):
        start(aws, "SELECT 1", **options)


def test_a_missing_result_bucket_fails_the_query(aws: LocalAws) -> None:
    execution = finished(aws, start(aws, "SELECT 1", "s3://no-such-bucket/x/"))
    assert execution["Status"]["State"] == "FAILED"
    assert "no-such-bucket" in execution["Status"]["StateChangeReason"]


def test_the_same_request_token_is_the_same_query(aws: LocalAws) -> None:
    token = "t" * 32
    assert start(aws, "SELECT 1", ClientRequestToken=token) == start(aws, "SELECT 1", ClientRequestToken=token)


def test_parameters_and_statements_about_the_catalog(aws: LocalAws) -> None:
    """SHOW has no header row and writes a text object."""
    asked = start(aws, "SELECT v FROM t WHERE id = ?", ExecutionParameters=["1"])
    shown = start(aws, "SHOW TABLES")
    finished(aws, asked)
    execution = finished(aws, shown)
    assert rows(aws, asked) == [["v"], ["a"]]
    assert (execution["StatementType"], rows(aws, shown)) == ("UTILITY", [["t"]])
    assert execution["ResultConfiguration"]["OutputLocation"].endswith(".txt")


def test_a_commit_is_seen_by_the_next_query(aws: LocalAws) -> None:
    lake = catalog(aws)
    table = lake.create_table("db.growing", pa.schema([("id", pa.int64())]), location="s3://lake/db/growing")
    for count in range(3):
        query_id = start(aws, "SELECT count(*) FROM growing")
        finished(aws, query_id)
        assert rows(aws, query_id)[1:] == [[str(count)]]
        table.append(pa.table({"id": [count]}))


def test_results_outlive_a_restart(tmp_path: Any) -> None:
    """An old query's rows are read again from its object. A query that runs does not keep the server from ending."""
    with running(tmp_path) as server:
        server.client("s3").create_bucket(Bucket="results")
        query_id = start(server, "SELECT 1 AS a, CAST(NULL AS varchar) AS b, '' AS c")
        finished(server, query_id)
        before = rows(server, query_id)
        unfinished = start(server, ENDLESS)
    assert server.process.returncode == 0
    with running(tmp_path) as server:
        assert finished(server, query_id)["Status"]["State"] == "SUCCEEDED"
        assert finished(server, unfinished)["Status"]["StateChangeReason"].endswith("the laptop's AWS was restarted")
        assert rows(server, query_id) == before == [["a", "b", "c"], ["1", None, ""]]
