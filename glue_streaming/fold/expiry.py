"""Snapshots of a lake table: which are kept, and when the others go. Metadata only; files go as orphans, days later.

What is kept: the current snapshot, one that stood for long and was replaced just now (a query may not have read its
manifest list yet, and a file as old as that is no longer safe), and what a tag of ours holds:

- `headrace-fold-<ms>`: what a fold reads, from before it reads until its commit. A killed fold's ages out.
- `headrace-replaced-<ms>`: the same snapshot from that commit on, for the longest query's time. A query that was
  planned while the fold ran reads files of this snapshot, or files that are still live: a fold removes no others.
- `headrace-day-<date>`: the state that the day's last fold replaced, where the table's policy keeps days to travel to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Final

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table, Transaction
from pyiceberg.table.update.snapshot import ExpireSnapshots, ManageSnapshots

from glue_streaming.errors import StaleWriter
from glue_streaming.fold.keep import Keep

FOLD: Final = "headrace-fold-"
REPLACED: Final = "headrace-replaced-"
DAY: Final = "headrace-day-"
STALE_FOLD_SECONDS: Final = 86_400.0
"""No fold takes longer; Glue ends a run after eight hours."""
MOST_FOLDS: Final = 10
"""One fold of a table runs at a time: more tags than this are of folds that died."""
_OLD_SECONDS: Final = 86_400.0
_ATTEMPTS: Final = 20


@dataclass(frozen=True)
class Step:
    """What one commit does to a table's snapshots. tag: name to snapshot."""

    drop: tuple[str, ...] = ()
    tag: Mapping[str, int] = field(default_factory=dict)
    expire: tuple[int, ...] = ()

    @property
    def empty(self) -> bool:
        return not (self.drop or self.tag or self.expire)


def step(
    refs: Mapping[str, int], snapshots: Mapping[int, int], keep: Keep, now: datetime, pin: str | None = None
) -> Step:
    """What is to go now. Pure. snapshots: when each was committed, in ms.

    pin: the tag of a fold whose commit is done; its snapshot is a replaced state now.
    """
    drop = [pin] if pin is not None and pin in refs else []
    tag = {f"{REPLACED}{_millis(now)}": refs[name] for name in drop}
    if drop and keep.time_travel_days > 0:
        tag[f"{DAY}{now.astimezone(UTC).date().isoformat()}"] = refs[drop[0]]
    drop += [name for name in refs if name not in drop and _aged(name, keep, now)]
    folds = sorted((name for name in refs if name.startswith(FOLD) and name not in drop), key=_tagged_at)
    drop += folds[:-MOST_FOLDS]
    after = {name: snapshot for name, snapshot in refs.items() if name not in drop} | tag
    kept = {*after.values(), *_still_read(snapshots, keep, now)}
    return Step(tuple(drop), tag, tuple(snapshot for snapshot in snapshots if snapshot not in kept))


@contextmanager
def pinned(catalog: Catalog, table: Table, now: datetime) -> Iterator[str | None]:
    """Holds the snapshot that the table has here, which a fold is about to read, under the tag that this gives.

    Behind the block the tag still stands, for `expire`; where the block raises, it is dropped.
    Raises StaleWriter where another fold has expired the snapshot already.
    """
    current = table.current_snapshot()
    if current is None:
        yield None
        return
    pin, name = f"{FOLD}{_millis(now)}", ".".join(table.name())

    def hold(fresh: Table) -> Step:
        if fresh.snapshot_by_id(current.snapshot_id) is None:
            raise StaleWriter(f"{name}: another fold expired the snapshot that this one was to read")
        return Step(tag={} if pin in fresh.metadata.refs else {pin: current.snapshot_id})

    def release(fresh: Table) -> Step:
        return Step(drop=(pin,) if pin in fresh.metadata.refs else ())

    if not _change(catalog.load_table(name), hold):
        raise StaleWriter(f"{name}: other writers left no room to hold the snapshot that this fold was to read")
    try:
        yield pin
    except Exception:
        _change(catalog.load_table(name), release)
        raise


def expire(table: Table, keep: Keep, now: datetime, pin: str | None = None) -> int:
    """Brings the table's snapshots in line; returns how many expired, none where other writers left no room."""
    table.refresh()
    before = len(table.metadata.snapshots)

    def wanted(fresh: Table) -> Step:
        refs = {name: ref.snapshot_id for name, ref in fresh.metadata.refs.items()}
        return step(refs, {s.snapshot_id: s.timestamp_ms for s in fresh.metadata.snapshots}, keep, now, pin)

    return max(0, before - len(table.metadata.snapshots)) if _change(table, wanted) else 0


def expire_older(table: Table, keep: Keep, now: datetime) -> int:
    """The same for a table that no fold tends: what no query can be reading any more goes."""
    table.refresh()
    before, oldest = len(table.metadata.snapshots), _millis(now) - keep.longest_query_seconds * 1000

    def wanted(fresh: Table) -> Step:
        named = {ref.snapshot_id for ref in fresh.metadata.refs.values()}
        old = (s.snapshot_id for s in fresh.metadata.snapshots if s.timestamp_ms < oldest)
        return Step(expire=tuple(snapshot for snapshot in old if snapshot not in named))

    return max(0, before - len(table.metadata.snapshots)) if _change(table, wanted) else 0


def _change(table: Table, wanted: Callable[[Table], Step]) -> bool:
    """Commits a step, made anew for the table as it is where another writer came before; False where it never fits."""
    for _ in range(_ATTEMPTS):
        found = wanted(table)
        if found.empty:
            return True
        try:
            with table.transaction() as transaction:
                _stage(transaction, found)
            return True
        except CommitFailedException:
            table.refresh()
    return False


def _stage(transaction: Transaction, found: Step) -> None:
    refs = ManageSnapshots(transaction)
    for name in found.drop:
        refs.remove_tag(name)
    for name, snapshot in found.tag.items():
        refs.create_tag(snapshot, name)
    refs.commit()
    if found.expire:
        ExpireSnapshots(transaction).by_ids(list(found.expire)).commit()


def _still_read(snapshots: Mapping[int, int], keep: Keep, now: datetime) -> set[int]:
    """Snapshots whose own files are old, and that a query may have begun with before the next one was committed."""
    in_order = sorted(snapshots, key=lambda snapshot: snapshots[snapshot])
    old, begun = _millis(now) - _OLD_SECONDS * 1000, _millis(now) - keep.longest_query_seconds * 1000
    return {
        snapshot for snapshot, behind in pairwise(in_order) if snapshots[snapshot] < old and snapshots[behind] > begun
    }


def _aged(name: str, keep: Keep, now: datetime) -> bool:
    """Whether a tag of ours has had its time."""
    if name.startswith(DAY):
        oldest = now.astimezone(UTC).date() - timedelta(days=keep.time_travel_days)
        return date.fromisoformat(name.removeprefix(DAY)) < oldest
    for prefix, seconds in ((REPLACED, keep.longest_query_seconds), (FOLD, STALE_FOLD_SECONDS)):
        if name.startswith(prefix):
            return _tagged_at(name) < _millis(now) - seconds * 1000
    return False


def _tagged_at(name: str) -> int:
    return int(name.rpartition("-")[2])


def _millis(now: datetime) -> int:
    return int(now.timestamp() * 1000)
