"""The lake's tables as the driver knows them: state, structure, and which writer schemas each can take."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchNamespaceError
from pyiceberg.table import Table

from glue_streaming import commit, evolution, lake_table
from glue_streaming.chain import Lane
from glue_streaming.data_files import WrittenFile
from glue_streaming.erasures import Erasures
from glue_streaming.errors import TableRefused
from glue_streaming.evolution import Fit
from glue_streaming.state import SOURCE, TABLE, EndedGroup, FoldState, SnapshotState, StreamState
from glue_streaming.state import fold_state as fold_of
from glue_streaming.state import stream_state as state_of
from glue_streaming.task import LaneKey, TableTask
from schemas.block import NO_SCHEMA
from schemas.change_record import TableSchema
from schemas.compatibility import changes
from schemas.control import Announcement, SnapshotEnd
from schemas.errors import UnknownFingerprint
from schemas.registry import Registered, Registry

log = logging.getLogger(__name__)

TableKey = tuple[str, str]
"""(source, table)"""


@dataclass
class Moves:
    """What one batch wants to commit to one table."""

    lanes: dict[str, tuple[Lane, str, str]] = field(default_factory=dict)
    ends: list[tuple[str, int, SnapshotEnd]] = field(default_factory=list)
    files: list[WrittenFile] = field(default_factory=list)


class LakeTable:
    """One table: the Iceberg table, what the job keeps in it, and the writer schemas that fit it."""

    def __init__(self, key: TableKey, table: Table, writers: Mapping[bytes, dict[str, Any]], epoch: int) -> None:
        self.key = key
        self.table = table
        self.writers = dict(writers)
        self.state = replace(state_of(table.metadata.properties), epoch=epoch)
        self._committed = state_of(table.metadata.properties)
        self.conflicts = 0
        """Commits that another writer's came before, and that were made again."""

    @property
    def fold_state(self) -> FoldState:
        return fold_of(self.table.metadata.properties)

    @property
    def unmatched_deletes(self) -> int:
        """Deletes of whole rows that the last major fold found no row for; of a table without a key only."""
        return self.fold_state.totals.unmatched_rows

    def task(self, erasures: Erasures | None = None) -> TableTask:
        names = {*self.state.marks, *(hole.lane for hole in self.state.holes)}
        return TableTask(
            schema=self.table.schema(),
            location=self.table.location(),
            writers=self.writers,
            lanes={name: self.state.lane(name) for name in names},
            activated_through=self.fold_state.activated_through,
            erasures=erasures,
        )

    def commit(self, moves: Moves, announced: Iterable[tuple[int, Announcement]], batch: int) -> bool:
        """Files, marks, holes and snapshots of a batch in one commit; False where nothing moved."""
        new = moved(self.state, moves, announced, self.fold_state.activated_through)
        if not moves.files and replace(new, epoch=0) == replace(self._committed, epoch=0):
            return False
        files = [file.to_data_file(self.table.spec().spec_id) for file in moves.files]
        summary = {"headrace.batch": str(batch)}
        commit.append(self.table, files, expected=self._committed, new=new, summary=summary, on_conflict=self._conflict)
        self.state = self._committed = new
        return True

    def _conflict(self) -> None:
        self.conflicts += 1


class Lake:
    """All tables of the job's sources. policy: what a table (source.table) does where a column changes its type.

    follow: brings the views of a source's tables in line with their structure, before rows can come that need it.
    """

    def __init__(
        self,
        catalog: Catalog,
        registry: Registry,
        lake_bucket: str,
        epoch: int,
        policy: Callable[[str], str] = lambda subject: evolution.NEW_COLUMN,
        follow: Callable[[str, Mapping[str, Table]], None] = lambda source, tables: None,
    ) -> None:
        self._catalog = catalog
        self._registry = registry
        self._lake_bucket = lake_bucket
        self._epoch = epoch
        self._policy = policy
        self._follow = follow
        self.tables: dict[TableKey, LakeTable] = {}

    def load(self, sources: Iterable[str]) -> None:
        """Loads every lake table of the sources, with the writer schemas that it takes as it stands."""
        for source in sources:
            try:
                names = self._catalog.list_tables(lake_table.lake_database(source))
            except NoSuchNamespaceError:
                continue
            for name in names:
                table = self._catalog.load_table(name)
                if table.metadata.properties.get(SOURCE) == source:
                    self._add((source, table.metadata.properties[TABLE]), table)
            self._follow(source, {key[1]: item.table for key, item in self.of(source).items()})

    def prepare(self, key: LaneKey, fingerprint: bytes) -> None:
        """Makes the lane's table take rows under the fingerprint: creates it, or lets it follow the new structure.

        Raises UnknownFingerprint (not registered, or not yet) or TableRefused.
        """
        table_key = (key.source, key.table)
        if fingerprint == NO_SCHEMA:
            registered = self._registry.latest(*table_key)
            if registered is None:
                raise UnknownFingerprint(f"no schema is registered for {key.source}.{key.table}")
        else:
            registered = self._registry.by_fingerprint(fingerprint)
        if (registered.schema.source, registered.schema.table) != table_key:
            raise TableRefused(f"fingerprint {fingerprint.hex()} is that of {registered.schema.subject}")
        if table_key not in self.tables:
            self._add(table_key, lake_table.ensure(self._catalog, registered.schema, self._lake_bucket))
        lake = self.tables[table_key]
        lake.table.refresh()
        lake_table.adopt_key(lake.table, registered.schema)
        versions = self._registry.versions(*table_key)
        before = lake.table.metadata_location
        newest = versions[-1].version == registered.version
        found = evolution.evolve(lake.table, registered.schema, self._policy(registered.schema.subject), newest=newest)
        if lake.table.metadata_location != before:
            self._follow(key.source, {key.table: lake.table})
        self._tell(registered, versions, found)
        lake.writers[registered.fingerprint] = evolution.writer(registered.schema, found)

    def add(self, key: LaneKey) -> None:
        """The lane's table, as its newest schema says, or without columns where there is none or it cannot be taken."""
        try:
            self.prepare(key, NO_SCHEMA)
        except (UnknownFingerprint, TableRefused):
            self.add_without_schema((key.source, key.table))

    def add_without_schema(self, key: TableKey) -> None:
        """A table that only keeps marks and holes, until a schema is registered for it."""
        nothing = TableSchema(*key, columns=(), key=())
        self._add(key, lake_table.ensure(self._catalog, nothing, self._lake_bucket))

    def of(self, source: str) -> dict[TableKey, LakeTable]:
        return {key: table for key, table in self.tables.items() if key[0] == source}

    def look_for_folds(self) -> None:
        """Reads the tables again that wait for a fold: those with a snapshot or a hole."""
        for table in self.tables.values():
            if table.state.snapshots or table.state.holes:
                table.table.refresh()

    def _tell(self, registered: Registered, versions: Iterable[Registered], found: Fit) -> None:
        """Says in the log how the structure differs from the version before, and where its columns go."""
        schema = registered.schema
        before = [item for item in versions if item.version < registered.version]
        said = changes(schema, before[-1].schema).sentences() if before else []
        said += [
            f"{old} goes on in {new}, for its type changed; {old} keeps what it holds"
            for new, old in found.retyped.items()
        ]
        if said:
            log.warning("structure changed", extra={"table": schema.subject, "changes": said})

    def _add(self, key: TableKey, table: Table) -> None:
        writers = {}
        origins = lake_table.origins_of(table.properties)
        for version in self._registry.versions(*key):
            try:
                found = evolution.fit(table.schema(), origins, version.schema)
            except TableRefused:
                continue
            if found.as_it_stands and not evolution.missing_identity(table.properties, version.schema):
                writers[version.fingerprint] = evolution.writer(version.schema, found)
        self.tables[key] = LakeTable(key, table, writers, self._epoch)


def moved(
    state: StreamState, moves: Moves, announced: Iterable[tuple[int, Announcement]], activated_through: int
) -> StreamState:
    """The table's state after a batch. Pure. announced: (era, announcement) of the newest progress record."""
    for lane, shard, sequence in moves.lanes.values():
        state = state.with_lane(lane, shard, sequence)
    snapshots = dict(state.snapshots)
    for era, item in announced:
        known = snapshots.get(item.snapshot, SnapshotState(item.low, era=era))
        snapshots[item.snapshot] = replace(known, low=min(known.low, item.low), abandoned=item.abandoned)
    for _, era, end in moves.ends:
        known = snapshots.get(end.snapshot, SnapshotState(end.consistent_point, era=era))
        group = EndedGroup(end.attempt, end.consistent_point, end.key_from, end.key_to, end.count)
        snapshots[end.snapshot] = replace(known, groups=end.groups, ended={**known.ended, end.group: group})
    logged = [file for file in moves.files if file.tier == "log"]
    totals = state.totals.plus(sum(f.rows for f in logged), sum(f.size for f in logged), len(logged))
    return replace(state, snapshots=snapshots, totals=totals).without_snapshots_through(activated_through)
