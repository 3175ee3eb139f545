"""Athena on the laptop: Trino's SQL over the Glue catalog, as it is while a query is planned.

`install` puts it in ministack's place. A query goes through these modules:
athena_service (executions, results) -> athena_engine (one connection a query) -> athena_analyser (names, views,
versions) -> athena_dialect (Trino's SQL as DuckDB's), with athena_iceberg and athena_relations for the tables' files.
"""

from types import ModuleType
from typing import Any

from .athena_permissions import Permissions
from .athena_service import AthenaService
from .athena_settings import AthenaSettings

__all__ = ["AthenaService", "AthenaSettings", "install", "run_query"]

_installed: list[AthenaService] = []


def install(
    athena: ModuleType, settings: AthenaSettings | None = None, permissions: Permissions | None = None
) -> AthenaService:
    """Let this module's engine answer in ministack's `athena` module. Close the service when the server ends."""
    from ministack.services import glue, s3

    service = AthenaService(athena, glue, s3, settings or AthenaSettings(), permissions)
    athena._start_query_execution = service.start_query_execution  # type: ignore[attr-defined]
    athena._get_query_execution = service.get_query_execution  # type: ignore[attr-defined]
    athena._get_query_results = service.get_query_results  # type: ignore[attr-defined]
    athena._stop_query_execution = service.stop_query_execution  # type: ignore[attr-defined]
    athena._run_duckdb = run_query  # type: ignore[attr-defined]
    _installed[:] = [service]
    return service


async def run_query(sql: str, database: str | None, catalog: str | None = None) -> dict[str, Any]:
    """One statement's columns, their Trino types in full, and rows of text. Raises QueryError in Athena's words."""
    if not _installed:
        raise RuntimeError("Athena is not installed: call install(ministack.services.athena) first")
    answer = await _installed[0].run(sql, database)
    types = [kind.text for kind in answer.types]
    return {"columns": list(answer.columns), "column_types": types, "rows": answer.rows()}
