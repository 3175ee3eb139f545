"""Manifests that became many where no fold merges them by the way: part of the daily maintenance.

While a hole or a snapshot holds a table's fold line, each batch leaves a manifest behind.
"""

from __future__ import annotations

from datetime import datetime

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from glue_streaming import commit
from glue_streaming.fold import expiry
from glue_streaming.fold.keep import Keep


def merge(catalog: Catalog, name: tuple[str, str], keep: Keep, now: datetime) -> int:
    """How many manifests the table has less; queries that began before read on. Raises as `commit.replace`."""
    table = catalog.load_table(name)
    before = _count(table)
    if before <= commit.MANY_MANIFESTS:
        return 0
    with expiry.pinned(catalog, table, now) as pin:
        commit.merge_manifests(catalog, ".".join(name))
    expiry.expire(table, keep, now, pin)
    return before - _count(table)


def _count(table: Table) -> int:
    snapshot = table.current_snapshot()
    return 0 if snapshot is None else len(snapshot.manifests(table.io))
