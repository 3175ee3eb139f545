"""Commits to lake tables: files and properties in one step, behind a fence, or not at all.

With `lake_catalog` and `lake_io` this is the module that uses private parts of PyIceberg (0.12, pinned). Not its way:

- The fence. PyIceberg's retry re-applies staged properties to whatever it finds, so a stale writer would move marks
  back. Here the properties that one writer owns are compared before the first attempt, which only lands where the
  table's snapshot is still the one that was compared, and with the refreshed table inside every retry.
- No cleaning up. PyIceberg deletes the manifests of a commit that it believes to have failed; where the catalog's
  answer was lost, that commit may be the live one. Left-over files are removed as orphans.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, ValidationException
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, ManifestFile
from pyiceberg.table import Table, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update import TableUpdate
from pyiceberg.table.update.snapshot import _FastAppendFiles, _ManifestMergeManager, _OverwriteFiles

from glue_streaming import failpoints
from glue_streaming.errors import CommitUnknown, StaleWriter
from glue_streaming.state import FoldState, StreamState, fold_state, stream_state

_ATTEMPTS: Final = 3
_FOLD_ATTEMPTS: Final = 20
"""Times PyIceberg's own nine. A fold's commit rewrites manifests, and so is slower than the appends that it races."""
_MANIFEST_BYTES: Final = 8 << 20
MANY_MANIFESTS: Final = 30

Fence = Callable[[Mapping[str, str]], None]
"""Raises StaleWriter where the properties of the refreshed table forbid the commit."""


class _Transaction(Transaction):
    """PyIceberg builds the metadata anew, with a deep copy, each of the dozen times that it looks at it."""

    _built: tuple[TableMetadata, tuple[TableUpdate, ...], TableMetadata] | None = None

    @property
    def table_metadata(self) -> TableMetadata:
        if self._built is None or self._built[0] is not self._table.metadata or self._built[1] is not self._updates:
            self._built = (self._table.metadata, self._updates, super().table_metadata)
        return self._built[2]


class _Append(_FastAppendFiles):
    """An append that the fence may refuse, also inside a retry."""

    def __init__(self, transaction: Transaction, io: FileIO, summary: Mapping[str, str], fence: Fence) -> None:
        super().__init__(Operation.APPEND, transaction, io, snapshot_properties=dict(summary))
        self._fence = fence

    def _validate_concurrency(self) -> None:
        self._fence(self._transaction._table.metadata.properties)

    def _cleanup_uncommitted(self) -> None:
        """Nothing is deleted: see the module."""

    def _clean_all_uncommitted(self) -> None:
        """Nothing is deleted: see the module."""


class _Replace(_OverwriteFiles):
    """A replacement of files that the fence may refuse; appends that race it do not disturb it."""

    def __init__(self, transaction: Transaction, io: FileIO, summary: Mapping[str, str], fence: Fence) -> None:
        super().__init__(Operation.OVERWRITE, transaction, io, snapshot_properties=dict(summary))
        self._fence = fence

    def _validate_concurrency(self) -> None:
        self._fence(self._transaction._table.metadata.properties)
        super()._validate_concurrency()

    def _process_manifests(self, manifests: list[ManifestFile]) -> list[ManifestFile]:
        """A fold leaves a manifest of its history behind: when there are many, they become one in its own commit."""
        return _ManifestMergeManager(_MANIFEST_BYTES, MANY_MANIFESTS, True, self).merge_manifests(manifests)

    def _cleanup_uncommitted(self) -> None:
        """Nothing is deleted: see the module."""

    def _clean_all_uncommitted(self) -> None:
        """Nothing is deleted: see the module."""


def append(
    table: Table,
    files: Sequence[DataFile],
    *,
    expected: StreamState,
    new: StreamState,
    summary: Mapping[str, str] | None = None,
    on_conflict: Callable[[], None] = lambda: None,
) -> bool:
    """The streaming job's commit: files, marks, holes and totals in one. False where nothing was to be done.

    on_conflict is called before every attempt but the first.
    Idempotent for its marks: after an unknown outcome the table is loaded again and its marks are compared.
    Raises StaleWriter (another writer moved the marks, or has a newer epoch: stop) or CommitUnknown (the catalog could
    not be asked: start again from the table's marks).
    """
    if not files and new.to_properties() == expected.to_properties():
        return False
    fence = _StreamFence(expected, new.epoch)

    def noticed(properties: Mapping[str, str]) -> None:
        on_conflict()
        fence(properties)

    def stage(transaction: Transaction) -> None:
        producer = _Append(transaction, table.io, summary or {}, noticed)
        for file in files:
            producer.append_data_file(file)
        producer.commit()

    return _commit(table, fence, new.to_properties(), stage)


def replace(
    catalog: Catalog,
    identifier: str,
    *,
    remove: Sequence[DataFile],
    add: Sequence[DataFile],
    expected: FoldState,
    new: FoldState,
    summary: Mapping[str, str] | None = None,
) -> None:
    """The fold's commit: exactly the files it read go, what it wrote comes, and F moves, in one.

    Raises StaleWriter (another fold moved F, or removed a file of `remove`) or CommitUnknown.
    """
    table = catalog.load_table(identifier)
    fence = _FoldFence(expected)

    def stage(transaction: Transaction) -> None:
        producer = _Replace(transaction, table.io, summary or {}, fence)
        for file in remove:
            producer.delete_data_file(file)
        for file in add:
            producer.append_data_file(file)
        producer.commit()

    _commit(table, fence, new.to_properties(), stage, _FOLD_ATTEMPTS)


def merge_manifests(catalog: Catalog, identifier: str) -> None:
    """Where there are many, they become one, as in a fold's commit: a replacement of nothing. Raises as `replace`."""
    state = fold_state(catalog.load_table(identifier).properties)
    replace(catalog, identifier, remove=(), add=(), expected=state, new=state, summary={"headrace.manifests": "true"})


@dataclass(frozen=True)
class _StreamFence:
    """The streaming job's: no newer epoch, and the marks and holes as this writer left them."""

    expected: StreamState
    epoch: int

    def __call__(self, properties: Mapping[str, str]) -> None:
        found = stream_state(properties)
        if found.epoch > self.epoch:
            raise StaleWriter(f"the table's writer epoch is {found.epoch}, ours is {self.epoch}: another job took over")
        if (found.marks, found.holes) != (dict(self.expected.marks), self.expected.holes):
            raise StaleWriter("the table's marks or holes are not the ones this job left: another writer moved them")


@dataclass(frozen=True)
class _FoldFence:
    """The fold's: F and the activated snapshot as they were when it began."""

    expected: FoldState

    def __call__(self, properties: Mapping[str, str]) -> None:
        found = fold_state(properties)
        if (found.line, found.activated_through) != (self.expected.line, self.expected.activated_through):
            raise StaleWriter(
                f"the fold line is {found.line}, this fold began at {self.expected.line}: another fold ran"
            )


def _commit(
    table: Table,
    fence: Fence,
    properties: dict[str, str],
    stage: Callable[[Transaction], None],
    attempts: int = _ATTEMPTS,
) -> bool:
    """One transaction of files and properties; on any failure the table is asked whether it is there all the same.

    It begins at the table as it is known here: every commit of marks or of the fold line adds a snapshot, so where
    another writer was there since, the catalog refuses and PyIceberg tries again behind the fence.
    Where it is not, and the fence still holds, a refusal is tried again from the reloaded table: a fold that expired
    the snapshot this commit began at makes PyIceberg refuse an append that conflicts with nothing, and appends every
    second can be quicker than all of its retries.
    """
    for attempt in range(attempts):
        _pass(fence, table, refresh=attempt > 0)
        failpoints.reach("commit.before")
        transaction = _Transaction(table)
        transaction.set_properties(properties)
        try:
            stage(transaction)
            failpoints.reach("commit.staged")
            transaction.commit_transaction()
            failpoints.reach("commit.after")
            return True
        except Exception as error:
            if _landed(table, properties, error):
                return True
            if not isinstance(error, ValidationException | CommitFailedException):
                raise
            if attempt == attempts - 1 and isinstance(error, ValidationException):
                raise StaleWriter(f"{'.'.join(table.name())}: {error}") from error
            if attempt == attempts - 1:
                raise
    return False


def _pass(fence: Fence, table: Table, *, refresh: bool) -> None:
    """Raises StaleWriter where the fence refuses the table as it is in the catalog."""
    if not refresh:
        with contextlib.suppress(StaleWriter):
            return fence(table.metadata.properties)
    table.refresh()
    return fence(table.metadata.properties)


def _landed(table: Table, properties: Mapping[str, str], error: Exception) -> bool:
    """Whether the table holds exactly the properties of the failed commit. Raises CommitUnknown if it cannot be asked.

    A client retries an UpdateTable whose success was lost and then reports a conflict, so a refusal proves nothing.
    """
    try:
        table.refresh()
    except Exception as unreachable:
        raise CommitUnknown(f"{'.'.join(table.name())}: the outcome of a commit is unknown: {unreachable}") from error
    return all(table.metadata.properties.get(name) == value for name, value in properties.items())
