"""Athena's query operations in ministack's place: executions, their results on S3, and the way to its Glue and S3.

Everything that touches ministack's state runs on its event loop; a query itself runs on a thread of ours.
"""

import asyncio
import contextvars
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from . import athena_results as results
from .athena_catalog import Entry
from .athena_engine import Answer, Cancellation, Engine, statement_kind
from .athena_errors import QueryCancelled, QueryError
from .athena_files import ObjectFiles
from .athena_permissions import (
    GuardedCatalog,
    GuardedFiles,
    Permissions,
    Unlimited,
    bucket_arn,
    encryption_headers,
    object_arn,
)
from .athena_results import Row
from .athena_settings import AthenaSettings

logger = logging.getLogger("localaws.athena")

Value = TypeVar("Value")
Reply = tuple[int, dict[str, str], bytes]

_ENGINE_VERSION = {
    "SelectedEngineVersion": "Athena engine version 3",
    "EffectiveEngineVersion": "Athena engine version 3",
}
_WAITING = ("QUEUED", "RUNNING")
_USER_ERROR, _SYSTEM_ERROR = 2, 1  # ErrorCategory


_LOOP_CHECK_SECONDS = 1.0


class MinistackCatalog:
    """Glue's catalog, read on the event loop, so that one read sees one state."""

    def __init__(self, glue: ModuleType, loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self._glue, self._loop = glue, loop

    def databases(self) -> Sequence[str]:
        return self._on_loop(lambda: list(self._glue._databases))

    def tables(self, database: str) -> Sequence[Entry]:
        reply: Reply = self._on_loop(lambda: self._glue._get_tables({"DatabaseName": database}))
        return json.loads(reply[2])["TableList"] if reply[0] == 200 else []

    def table(self, database: str, name: str) -> Entry | None:
        reply: Reply = self._on_loop(lambda: self._glue._get_table({"DatabaseName": database, "Name": name}))
        return json.loads(reply[2])["Table"] if reply[0] == 200 else None

    def _on_loop(self, read: Callable[[], Value]) -> Value:
        answer: Future[Value] = Future()

        def call() -> None:
            try:
                answer.set_result(read())
            except Exception as error:
                answer.set_exception(error)

        # The context holds the account and the region of the request.
        loop = self._loop()
        loop.call_soon_threadsafe(call, context=contextvars.copy_context())
        while True:
            try:
                return answer.result(_LOOP_CHECK_SECONDS)
            except TimeoutError:
                if loop.is_closed():  # the server ended before it came to this read
                    raise QueryCancelled("the laptop's AWS is stopping") from None


class AthenaService:
    """The operations on query executions. Its engine may be given a hook that tests use."""

    def __init__(
        self,
        athena: ModuleType,
        glue: ModuleType,
        s3: ModuleType,
        settings: AthenaSettings,
        permissions: Permissions | None = None,
    ) -> None:
        self._athena, self._s3, self._settings = athena, s3, settings
        self._permissions = permissions or Unlimited()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pool = ThreadPoolExecutor(settings.parallel_queries, thread_name_prefix="athena")
        self._running: dict[str, tuple[asyncio.Task[None], Cancellation]] = {}
        self._tokens: OrderedDict[str, str] = OrderedDict()
        self._rows: OrderedDict[str, list[Row]] = OrderedDict()
        self._catalog = GuardedCatalog(MinistackCatalog(glue, self._current_loop), self._permissions, _glue_arn)
        files = GuardedFiles(ObjectFiles(self._object_path), self._permissions)
        self.engine = Engine(self._catalog, files, settings)

    def close(self) -> None:
        """Stop what runs and let the threads go."""
        for _, cancellation in self._running.values():
            cancellation.cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.engine.close()

    def _current_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise RuntimeError("no query has been started on an event loop yet")
        return self._loop

    def _object_path(self, bucket: str, key: str) -> Path | None:
        found = self._s3._object_disk_path(bucket, key)
        return Path(found) if found else None

    async def run(
        self, sql: str, database: str | None, parameters: Sequence[str] = (), cancellation: Cancellation | None = None
    ) -> Answer:
        """The answer of the engine, computed on a thread of the pool in the caller's account and region."""
        self._loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        return await self._loop.run_in_executor(
            self._pool, context.run, self.engine.run, sql, database, parameters, cancellation
        )

    # The operations, under the names that ministack's dispatch looks up.

    def start_query_execution(self, data: dict[str, Any]) -> Any:
        token, sql = data.get("ClientRequestToken"), data.get("QueryString", "")
        if token and token in self._tokens:
            return self._athena.json_response({"QueryExecutionId": self._tokens[token]})
        name = data.get("WorkGroup", "primary")
        workgroup = self._athena._workgroups.get(name)
        if workgroup is None:
            return self._invalid(f"WorkGroup {name} is not found.")
        if workgroup.get("State") == "DISABLED":
            return self._invalid(f"WorkGroup {name} is disabled.")
        location = _output_location(workgroup.get("Configuration", {}), data.get("ResultConfiguration", {}))
        if not location.startswith("s3://"):
            return self._invalid(
                "No output location provided. An output location is required either through the Workgroup result "
                "configuration setting or as an API input."
            )
        context = data.get("QueryExecutionContext") or {}
        if why := self._catalog.database_refusal(str(context.get("Database") or "default").lower()):
            return self._denied(why)
        if why := self._permissions.refusal("s3:GetBucketLocation", bucket_arn(location)):
            return self._invalid(f"Unable to verify/create output bucket {_bucket_and_key(location)[0]}: {why}")
        query_id = self._athena.new_uuid()
        execution = _new_execution(query_id, sql, name, location, context, time.time())
        execution["_headers"] = _encryption(workgroup.get("Configuration", {}), data.get("ResultConfiguration", {}))
        execution["ExecutionParameters"] = data.get("ExecutionParameters", [])
        self._athena._executions[query_id] = execution
        if token:
            self._tokens[token] = query_id
            while len(self._tokens) > 1000:
                self._tokens.popitem(last=False)
        cancellation = Cancellation()
        task = asyncio.get_running_loop().create_task(self._execute(execution, context.get("Database"), cancellation))
        self._running[query_id] = (task, cancellation)
        return self._athena.json_response({"QueryExecutionId": query_id})

    def get_query_execution(self, data: dict[str, Any]) -> Any:
        execution = self._execution(data)
        if execution is None:
            return self._not_found(data)
        return self._athena.json_response({"QueryExecution": self._athena._execution_out(execution)})

    def stop_query_execution(self, data: dict[str, Any]) -> Any:
        execution = self._execution(data)
        if execution is None:
            return self._not_found(data)
        running = self._running.get(execution["QueryExecutionId"])
        if running and execution["Status"]["State"] in _WAITING:
            running[1].cancel()
            _finish(execution, "CANCELLED", "Query was cancelled by user", time.time())
        return self._athena.json_response({})

    def get_query_results(self, data: dict[str, Any]) -> Any:
        execution = self._execution(data)
        if execution is None:
            return self._not_found(data)
        state = execution["Status"]["State"]
        if state in _WAITING:
            return self._invalid(f"Query has not yet finished. Current state: {state}")
        if state != "SUCCEEDED":
            reason = execution["Status"].get("StateChangeReason", "")
            return self._invalid(f"Query did not finish successfully. Final query state: {state}. {reason}".strip())
        max_results = int(data.get("MaxResults") or results.MAX_ROWS)
        if not 1 <= max_results <= results.MAX_ROWS:
            return self._invalid(f"MaxResults is more than maximum allowed length {results.MAX_ROWS}.")
        location = execution["ResultConfiguration"]["OutputLocation"]
        if why := self._permissions.refusal("s3:GetObject", object_arn(location)):
            return self._denied(why)
        columns = execution["_columns"]
        header = [column["Name"] for column in columns] if execution["StatementType"] == "DML" else None
        try:
            shown = results.page(self._result_rows(execution), header, data.get("NextToken"), max_results)
        except (ValueError, FileNotFoundError) as error:
            return self._invalid(f"Results cannot be read: {error}")
        return self._athena.json_response(results.result_set(shown, columns))

    # What happens to one execution.

    async def _execute(self, execution: dict[str, Any], database: str | None, cancellation: Cancellation) -> None:
        query_id, sql = execution["QueryExecutionId"], execution["Query"]
        started = time.time()
        execution["Status"]["State"] = "RUNNING"
        try:
            answer = await self.run(sql, database, execution["ExecutionParameters"], cancellation)
            if not cancellation.cancelled:
                self._succeed(execution, answer, started)
        except asyncio.CancelledError:  # the server ends: nothing waits for the thread any more
            cancellation.cancel()
            raise
        except QueryCancelled as error:
            _finish(execution, "CANCELLED", str(error), time.time())
        except QueryError as error:
            _fail(execution, str(error), _USER_ERROR, time.time())
        except Exception as error:
            logger.exception("query %s failed inside the engine: %s", query_id, sql)
            _fail(execution, f"GENERIC_INTERNAL_ERROR: {type(error).__name__}: {error}", _SYSTEM_ERROR, time.time())
        finally:
            self._running.pop(query_id, None)

    def _succeed(self, execution: dict[str, Any], answer: Answer, started: float) -> None:
        is_query = execution["StatementType"] == "DML"
        infos = [results.column_info(name, kind) for name, kind in zip(answer.columns, answer.types, strict=True)]
        content = results.csv_object(answer) if is_query else results.text_object(answer)
        location = execution["ResultConfiguration"]["OutputLocation"]
        encryption = execution.get("_headers", {})
        problem = self._put(location, content, encryption) or self._put(
            f"{location}.metadata", json.dumps(infos).encode(), encryption
        )
        if problem:
            _fail(execution, problem, _USER_ERROR, time.time())
            return
        execution["_columns"] = infos
        self._remember(execution["QueryExecutionId"], answer.rows())
        now = time.time()
        execution["Statistics"].update(
            EngineExecutionTimeInMillis=round((answer.planning_seconds + answer.execution_seconds) * 1000),
            QueryPlanningTimeInMillis=round(answer.planning_seconds * 1000),
            TotalExecutionTimeInMillis=round((now - execution["Status"]["SubmissionDateTime"]) * 1000),
            QueryQueueTimeInMillis=round((started - execution["Status"]["SubmissionDateTime"]) * 1000),
            ServiceProcessingTimeInMillis=round(
                max(0.0, now - started - answer.planning_seconds - answer.execution_seconds) * 1000
            ),
            DataScannedInBytes=answer.scanned_bytes,
        )
        _finish(execution, "SUCCEEDED", "", now)

    def _put(self, location: str, content: bytes, encryption: dict[str, str]) -> str | None:
        """Write a result object as the caller; why it did not work, if it did not."""
        bucket, key = _bucket_and_key(location)
        if why := self._permissions.refusal("s3:PutObject", object_arn(location), encryption):
            return (
                f"Access denied when writing output to url: {location} . Please ensure you are allowed to access the "
                f"S3 bucket, and the KMS key if query results are encrypted. {why}"
            )
        headers = {"content-type": "application/octet-stream", "content-length": str(len(content)), **encryption}
        reply = self._s3._put_object(bucket, key, content, headers)
        if reply[0] < 300:
            return None
        return f"Unable to verify/create output bucket {bucket}: S3 answered {reply[0]} to the write of {location}"

    def _remember(self, query_id: str, rows: list[Row]) -> None:
        self._rows[query_id] = rows
        while len(self._rows) > self._settings.remembered_results:
            self._rows.popitem(last=False)

    def _result_rows(self, execution: dict[str, Any]) -> list[Row]:
        query_id, location = execution["QueryExecutionId"], execution["ResultConfiguration"]["OutputLocation"]
        if query_id not in self._rows:
            content = self._s3._get_object_data(*_bucket_and_key(location))
            if content is None:
                raise FileNotFoundError(f"the result object {location} is gone")
            is_query = execution["StatementType"] == "DML"
            width = len(execution["_columns"])
            self._remember(query_id, results.parse_csv(content, width) if is_query else results.parse_text(content))
        self._rows.move_to_end(query_id)
        return self._rows[query_id]

    def _execution(self, data: dict[str, Any]) -> dict[str, Any] | None:
        query_id = data.get("QueryExecutionId")
        execution: dict[str, Any] | None = self._athena._executions.get(query_id)
        if execution and execution["Status"]["State"] in _WAITING and query_id not in self._running:
            _fail(execution, "GENERIC_INTERNAL_ERROR: the laptop's AWS was restarted", _SYSTEM_ERROR, time.time())
        return execution

    def _denied(self, message: str) -> Any:
        return self._athena.error_response_json("AccessDeniedException", message, 400)

    def _invalid(self, message: str) -> Any:
        return self._athena.error_response_json("InvalidRequestException", message, 400)

    def _not_found(self, data: dict[str, Any]) -> Any:
        return self._invalid(f"QueryExecution {data.get('QueryExecutionId')} was not found")


def _glue_arn(resource: str) -> str:
    from ministack.core.responses import get_account_id, get_region

    return f"arn:aws:glue:{get_region()}:{get_account_id()}:{resource}"


def _output_location(configuration: dict[str, Any], asked: dict[str, Any]) -> str:
    """The folder of the results: the workgroup's when it is enforced or nothing else was asked for."""
    own = (configuration.get("ResultConfiguration") or {}).get("OutputLocation") or ""
    enforced = configuration.get("EnforceWorkGroupConfiguration", False) and own
    location = own if enforced else asked.get("OutputLocation") or own
    return location if not location or location.endswith("/") else f"{location}/"


def _encryption(configuration: dict[str, Any], asked: dict[str, Any]) -> dict[str, str]:
    """How results are encrypted: as the workgroup says when it is enforced or nothing else was asked for."""
    own = (configuration.get("ResultConfiguration") or {}).get("EncryptionConfiguration") or {}
    given = asked.get("EncryptionConfiguration") or {}
    return encryption_headers(own if configuration.get("EnforceWorkGroupConfiguration") and own else given or own)


def _bucket_and_key(location: str) -> tuple[str, str]:
    bucket, _, key = location.removeprefix("s3://").partition("/")
    return bucket, key


def _new_execution(
    query_id: str, sql: str, workgroup: str, location: str, context: dict[str, Any], now: float
) -> dict[str, Any]:
    kind = statement_kind(sql)
    return {
        "QueryExecutionId": query_id,
        "Query": sql,
        "StatementType": kind,
        "ResultConfiguration": {"OutputLocation": f"{location}{query_id}.{'csv' if kind == 'DML' else 'txt'}"},
        "QueryExecutionContext": dict(context),
        "Status": {"State": "QUEUED", "SubmissionDateTime": now},
        "Statistics": {"EngineExecutionTimeInMillis": 0, "DataScannedInBytes": 0, "TotalExecutionTimeInMillis": 0},
        "WorkGroup": workgroup,
        "EngineVersion": _ENGINE_VERSION,
    }


def _finish(execution: dict[str, Any], state: str, reason: str, now: float) -> None:
    execution["Status"].update(State=state, CompletionDateTime=now)
    if reason:
        execution["Status"]["StateChangeReason"] = reason


def _fail(execution: dict[str, Any], reason: str, category: int, now: float) -> None:
    error = {"ErrorCategory": category, "ErrorType": 1, "Retryable": False, "ErrorMessage": reason}
    execution["Status"]["AthenaError"] = error
    _finish(execution, "FAILED", reason, now)
