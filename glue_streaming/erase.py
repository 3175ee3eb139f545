"""Carries out erasures: rewrites what the lake holds of a table's erased keys. Part of the maintenance job.

Idempotent: each table is looked through from the start, and what was done before is found done. A run that dies leaves
the table as it was, or a commit that the next run finds behind it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Final

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from glue_streaming import commit, data_files, failpoints
from glue_streaming.aws import Aws
from glue_streaming.data_files import WrittenFile
from glue_streaming.erase_raw import erase_claims, erase_raw
from glue_streaming.erasure_records import Record, Records
from glue_streaming.erasures import POSITION, Erasures, positions_of
from glue_streaming.fold import expiry, lake_rows
from glue_streaming.fold.keep import Keep
from glue_streaming.fold.lake_files import LakeFile, lake_files
from glue_streaming.state import fold_state, stream_state
from schemas.position import Position
from schemas.registry import Registry

_PASSES: Final = 5


@dataclass
class Erased:
    """What was rewritten, by tier, and what has to wait for a fold: rows whose values another row still needs."""

    files: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    waiting: int = 0

    @property
    def report(self) -> dict[str, int]:
        files = {f"{tier}_files": count for tier, count in self.files.items()}
        return files | {f"{tier}_rows": count for tier, count in self.rows.items()}


@dataclass(frozen=True)
class _Look:
    """What one file holds of the matter. gone: positions of rows to go; needing: inserts that left values out and
    continue a row with another key, by the position of that row's delete."""

    file: LakeFile
    meant: int
    gone: frozenset[Position]
    named: frozenset[Position]
    needing: frozenset[Position]


def open_tables(records: Records) -> list[str]:
    """The tables of which something is still to be erased."""
    return sorted({record.table for record in records.all() if record.done_at is None})


def let_in(records: Records, settle_seconds: float, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
    """Waits until a batch that began before the newest request has surely ended, or knows of it."""
    asked = [datetime.fromisoformat(r.requested_at).timestamp() for r in records.all() if r.done_at is None]
    wait = max(asked, default=0.0) + settle_seconds - clock()
    if wait > 0:
        sleep(wait)


def carry_out(
    aws: Aws, bucket: str, records: Records, registry: Registry, name: tuple[str, str], keep: Keep
) -> dict[str, int]:
    """The open erasures of one table, wherever its rows lie, until nothing is left of them; what was done.

    Where rows wait for a fold the records stay open, for the run after it.
    """
    table = name[1]
    erasures = records.by_table()[table]
    asked = [record for record in records.all() if record.table == table and record.done_at is None]
    done: Counter[str] = Counter()
    waiting = 0
    if aws.catalog.table_exists(name):
        _count_intended(aws.catalog, name, records, asked)
        for _ in range(_PASSES):
            now = datetime.now(UTC)
            erased = erase_table(aws.catalog, name, erasures, keep, now, partial(_intend, records, asked, now))
            waiting = erased.waiting
            if not erased.files:
                break
            for record in asked:
                records.count(record, erased.report)
            done.update(erased.report)
    done += _beside(aws, bucket, records, asked, registry, name, erasures)
    if not waiting:
        failpoints.reach("erase.closing")
        for record in asked:
            records.close(record, datetime.now(UTC))
    found = {what: count for what, count in done.items() if count}
    return {**found, **({"rows_waiting_for_a_fold": waiting} if waiting else {})}


def _intend(records: Records, asked: Sequence[Record], now: datetime, erased: Erased) -> None:
    for record in asked:
        records.intend(record, now.isoformat(), erased.report)
    failpoints.reach("erase.intended")


def _count_intended(catalog: Catalog, name: tuple[str, str], records: Records, asked: Sequence[Record]) -> None:
    """What a run that died has committed and not counted; where its commit is not there, nothing was done."""
    erased_at = fold_state(catalog.load_table(name).properties).erased_at
    for record in asked:
        if record.intended is not None:
            at, report = record.intended
            records.count(record, report if at == erased_at else {})


def _beside(
    aws: Aws, bucket: str, records: Records, asked: Sequence[Record], registry: Registry,
    name: tuple[str, str], erasures: Erasures,
) -> Counter[str]:  # fmt: skip
    """Raw bytes and claims."""

    def noted(what: str, key: str) -> None:
        for record in asked:
            records.count_object(record, what, key)
        failpoints.reach("erase.object")

    s3, table = aws.client("s3"), name[1]
    done = erase_raw(s3, bucket, records.source, registry, {table: erasures}, noted)
    if aws.catalog.table_exists(name):
        state = stream_state(aws.catalog.load_table(name).properties)
        done["claims_deleted"] += erase_claims(s3, bucket, records.source, table, state, noted)
    return done


def erase_table(
    catalog: Catalog,
    name: tuple[str, str],
    erasures: Erasures,
    keep: Keep,
    now: datetime,
    intended: Callable[[Erased], None] = lambda _: None,
) -> Erased:
    """Rewrites the files of all tiers that hold what is to go, in one commit, and lets older states expire.

    Where a row in the log moved away from an erased key and left values out, only a fold knows how to give it those
    values: the table waits for the fold, which drops the erased key by the way.
    intended: told what is about to be committed, with `now` as the table's `erased_at`.
    Raises StaleWriter where a fold committed meanwhile, or CommitUnknown: run it again.
    """
    table = catalog.load_table(name)
    looks = [_look(table, file, erasures) for file in lake_files(table) if erasures.reach(file.lowest)]
    gone = frozenset[Position]().union(*(look.gone for look in looks))
    needing = frozenset[Position]().union(*(look.needing for look in looks if look.file.tier == "log"))
    if needing & gone:
        return Erased(waiting=len(needing & gone))
    touched = [look for look in looks if look.meant or _behind(gone) & look.named]
    done = Erased()
    if not touched:
        expiry.expire(table, replace(keep, time_travel_days=0), now)
        return done
    with expiry.pinned(catalog, table, now) as pin:
        written = [_rewritten(table, look.file, erasures, gone) for look in touched]
        before = fold_state(table.properties)
        totals = before.totals
        for look, file in zip(touched, written, strict=True):
            rows, size = (0, 0) if file is None else (file.rows, file.size)
            totals = totals.moved(look.file.tier, rows - look.file.rows, size - look.file.size)
            done.files[look.file.tier] += 1
            done.rows[look.file.tier] += look.meant
        intended(done)
        commit.replace(
            catalog,
            ".".join(name),
            remove=[look.file.data_file for look in touched],
            add=[file.to_data_file(table.spec().spec_id) for file in written if file is not None],
            expected=before,
            new=replace(before, totals=totals, erased_at=now.isoformat()),
            summary={"headrace.erasure": "true"},
        )
    expiry.expire(table, replace(keep, time_travel_days=0), now, pin)
    return done


def _look(table: Table, file: LakeFile, erasures: Erasures) -> _Look:
    columns = {*POSITION, "_op", "_old_key", "_unchanged", "_raw"}.union(*(r.columns for r in erasures.records))
    meant, gone, named, needing = 0, set(), set(), set()
    for rows in lake_rows.rows(table, file, columns):
        goes = erasures.meant(rows, blanked=file.tier != "staged")
        positions = positions_of(rows)
        meant += sum(goes)
        gone |= {position for position, hit in zip(positions, goes, strict=True) if hit}
        old_keys, unchanged = rows.column("_old_key").to_pylist(), rows.column("_unchanged").to_pylist()
        by_text = erasures.old_keys(rows, ())
        for position, old_key, left_out, text in zip(positions, old_keys, unchanged, by_text, strict=True):
            if old_key is not None:
                before = position._replace(idx=position.idx - 1)
                named.add(position)
                if left_out:
                    needing.add(before)
                if text:
                    gone.add(before)
    return _Look(file, meant, frozenset(gone), frozenset(named), frozenset(needing))


def _behind(gone: frozenset[Position]) -> frozenset[Position]:
    return frozenset(position._replace(idx=position.idx + 1) for position in gone)


def _rewritten(table: Table, file: LakeFile, erasures: Erasures, gone: frozenset[Position]) -> WrittenFile | None:
    """The file without what is to go; None where nothing is left of it."""
    kept = (
        batch for rows in lake_rows.rows(table, file) for batch in erasures.apply(rows, file.tier, gone).to_batches()
    )
    return data_files.write(kept, schema=table.schema(), location=table.location(), tier=file.tier, io=table.io)
