"""Runs queries, each on its own connection of one in-memory DuckDB."""

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from . import athena_dialect as dialect
from . import athena_statements as statements
from .athena_analyser import Analyser
from .athena_catalog import Catalog, CatalogReads
from .athena_errors import QueryCancelled
from .athena_files import Files
from .athena_iceberg import Lake, Remembered
from .athena_references import Compiled, compiled
from .athena_relations import Relations
from .athena_settings import AthenaSettings
from .athena_text import Texts, column_texts
from .athena_types import TrinoType
from .athena_types import from_duckdb as trino_type


@dataclass(frozen=True, slots=True)
class Answer:
    """A query's result. `texts` are Athena's text forms, a list for each column; None is NULL."""

    columns: tuple[str, ...]
    types: tuple[TrinoType, ...]
    texts: tuple[Texts, ...]
    scanned_bytes: int = 0
    planning_seconds: float = 0.0
    execution_seconds: float = 0.0

    def rows(self) -> list[list[str | None]]:
        return [list(row) for row in zip(*self.texts, strict=True)]


class Cancellation:
    """Lets another thread stop a query, before or while it runs."""

    def __init__(self) -> None:
        self._cancelled, self._done = threading.Event(), threading.Event()
        self._connection: duckdb.DuckDBPyConnection | None = None

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Stop the query soon. Returns at once."""
        if not self._cancelled.is_set():
            self._cancelled.set()
            threading.Thread(target=self._interrupt, name="athena-cancel", daemon=True).start()

    def _interrupt(self) -> None:
        # DuckDB forgets an interrupt that comes between two statements of a query, so one is not enough.
        while not self._done.is_set():
            connection = self._connection
            if connection is not None:
                with contextlib.suppress(duckdb.Error):  # it was closed just now
                    connection.interrupt()
            self._done.wait(_INTERRUPT_SECONDS)

    @contextlib.contextmanager
    def watching(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Interrupt this connection on cancel, for the length of a block. Raises QueryCancelled if it is too late."""
        self._connection = connection
        try:
            if self.cancelled:
                raise QueryCancelled("Query was cancelled by user")
            yield
        finally:
            self._connection = None
            self._done.set()


_INTERRUPT_SECONDS = 0.05


class Engine:
    """Answers SQL over a catalog and the files of a lake. `run` may be called from several threads."""

    def __init__(self, catalog: Catalog, files: Files, settings: AthenaSettings | None = None) -> None:
        settings = settings or AthenaSettings()
        self._catalog, self._lake = catalog, Lake(files)
        # Called with (database, name) before each catalog entry is read: a test's chance to commit in between.
        self.before_catalog_read: Callable[[str, str], None] | None = None
        self._compilations: Remembered[Compiled] = Remembered(1024)
        self._database = _database(settings)
        self._database_lock = threading.Lock()

    def close(self) -> None:
        self._database.close()

    def run(
        self,
        text: str,
        schema: str | None = None,
        parameters: Sequence[str] = (),
        cancellation: Cancellation | None = None,
    ) -> Answer:
        """The answer to one statement. Raises QueryError, or QueryCancelled after a cancel."""
        cancellation = cancellation or Cancellation()
        reads = CatalogReads(self._catalog, self.before_catalog_read)
        found = statements.listing(text, schema, reads)
        if found:
            kinds = tuple(TrinoType("varchar") for _ in found.columns)
            texts = tuple([row[position] or None for row in found.rows] for position in range(len(kinds)))
            return Answer(found.columns, kinds, texts)
        with self._database_lock:
            connection = self._database.cursor()
        try:
            with cancellation.watching(connection):
                return self._query(connection, text, schema, parameters, reads)
        except duckdb.InterruptException:
            raise QueryCancelled("Query was cancelled by user") from None
        finally:
            connection.close()

    def _query(
        self,
        connection: duckdb.DuckDBPyConnection,
        text: str,
        schema: str | None,
        parameters: Sequence[str],
        reads: CatalogReads,
    ) -> Answer:
        started = time.perf_counter()
        for setting in dialect.SESSION:
            connection.execute(setting)
        asked = statements.explained(text)
        query = asked if asked is not None else text
        relations = Relations(connection, self._lake)
        analyser = Analyser(reads, self._lake, relations, self._compilations)
        try:
            relation = connection.sql(analyser.sql(self._statement(query, schema, parameters)))
            if asked is not None:
                return _plan(relation)
            kinds = tuple(trino_type(kind) for kind in relation.types)
            planned = time.perf_counter()
            rows = relation.to_arrow_table()
            executed = time.perf_counter()
        except duckdb.Error as error:
            raise analyser.blamed(error, query) from error
        return Answer(
            tuple(relation.columns), kinds, _texts(rows, kinds),
            relations.scanned_bytes, planned - started, executed - planned,
        )  # fmt: skip

    def _statement(self, text: str, schema: str | None, parameters: Sequence[str]) -> Compiled:
        tree = dialect.parse(text)
        statements.require_query(tree)
        if parameters:
            dialect.bind(tree, parameters)
        return compiled(dialect.name_outputs(tree), schema, text)


def _texts(rows: pa.Table, kinds: tuple[TrinoType, ...]) -> tuple[Texts, ...]:
    return tuple(column_texts(column, kind) for column, kind in zip(rows.columns, kinds, strict=True))


def _plan(relation: Any) -> Answer:
    lines: Texts = list(str(relation.explain()).split("\n"))
    return Answer(("Query Plan",), (TrinoType("varchar"),), (lines,))


def _database(settings: AthenaSettings) -> duckdb.DuckDBPyConnection:
    config: dict[str, Any] = {
        "threads": settings.threads,
        "memory_limit": f"{settings.memory_limit_mib}MiB",
        # Nothing is ever fetched from the network.
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "temp_directory": str(settings.spill_folder) if settings.spill_folder else "",
    }
    database = duckdb.connect(":memory:", config=config)
    for macro in dialect.MACROS:
        database.execute(macro)
    return database


def statement_kind(text: str) -> str:
    """DML, DDL or UTILITY, as Athena sorts statements."""
    word = _first_word(text)
    if word in ("select", "with", "values", "table", "insert", "delete", "update", "merge"):
        return "DML"
    return "DDL" if word in ("create", "drop", "alter") else "UTILITY"


_COMMENTS = re.compile(r"\s+|--[^\n]*|/\*.*?\*/|\(", re.DOTALL)


def _first_word(text: str) -> str:
    position = 0
    while skipped := _COMMENTS.match(text, position):
        position = skipped.end()
    word = re.compile(r"\w*").match(text, position)
    return word[0].lower() if word else ""
