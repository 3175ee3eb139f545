"""Whole transactions: a query over several cut views, with a commit to every table before each of its catalog reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import count, product
from pathlib import Path
from typing import Any

import pytest

from glue_streaming.errors import StaleWriter
from localaws.athena_engine import Engine
from tests.streaming import athena
from tests.streaming.test_streaming_cut import activate

TABLES = ("orders", "items")
ROWS = int(os.environ.get("HEADRACE_TORN_ROWS", "8000"))
"""Rows of the large transaction, over both tables and two lanes of each."""
_BLOCK_ROWS = 20_000


@pytest.fixture
def engine(world: Any, tmp_path: Path) -> Iterator[Engine]:
    with athena.opened(world.server, tmp_path) as made:
        yield made


@pytest.fixture
def commit(world: Any, job: Any) -> Callable[..., None]:
    """Sends a transaction of `rows` rows over two lanes of both tables, block by block, and says so; the job is still
    to load it.

    between: called with every block sent.
    """
    schemas, lsns = {name: world.schema(name) for name in TABLES}, count(100, 10)
    activate(world, job, *TABLES)

    def transaction(rows: int = 8, between: Callable[[int], None] = lambda lsn: None) -> None:
        lsn = next(lsns)
        for schema, lane in product(schemas.values(), ("0", "1")):
            of_lane = rows // 4
            step = max(1, min(_BLOCK_ROWS, of_lane // 2))
            for first in range(0, of_lane, step):
                numbers = range(first, min(first + step, of_lane))
                ids = [{"id": (lsn << 32) + n * 2 + int(lane)} for n in numbers]
                world.send(world.data(schema, lsn, ids, lane=lane, first=first))
                between(lsn)
        world.send(world.progress(lsn + 5))

    return transaction


def _counts(engine: Engine, world: Any, database: str) -> tuple[int, int]:
    source = f"{world.source}{database}"
    ((orders, items),) = engine.run(
        f"SELECT (SELECT count(*) FROM {source}.orders), (SELECT count(*) FROM {source}.items)"
    ).rows()
    return int(orders), int(items)


def test_no_query_over_cut_views_sees_a_part_of_a_transaction(
    world: Any, job: Any, engine: Engine, commit: Callable[..., None]
) -> None:
    """Both tables show the same transactions, whatever was committed between the reads; the fresh views do not."""

    def commit_more(*_: str) -> None:
        commit()
        job.run(1)

    commit_more()
    engine.before_catalog_read = commit_more
    cut = [_counts(engine, world, "_cut") for _ in range(3)]
    assert all(orders == items for orders, items in cut)
    assert cut[0][0] < cut[-1][0], "the cut stood still"
    fresh = [_counts(engine, world, "") for _ in range(2)]
    assert any(orders != items for orders, items in fresh), "nothing was committed between the reads"


@pytest.mark.parametrize("stopped", ["before it looks", "before it writes"])
def test_a_driver_that_was_stopped_before_it_published_tears_nothing(
    world: Any, job: Any, engine: Engine, commit: Callable[..., None], stopped: str
) -> None:
    """It has committed and is stopped; another takes over, commits and publishes; going on, it publishes nothing."""
    driver = job.driver
    (publisher,) = driver._publishers.values()
    real = publisher.check

    def take_over() -> None:
        if stopped == "before it writes":
            real()
        publisher.check = real
        job.driver = job.another()
        for _ in range(3):
            commit()
            job.run(1)
            assert len(set(_counts(engine, world, "_cut"))) == 1
        if stopped == "before it looks":
            real()

    commit()
    publisher.check = take_over
    if stopped == "before it looks":
        with pytest.raises(StaleWriter):
            driver.run_batch()
    else:
        driver.run_batch()
    newest = job.watermark()
    assert len(set(_counts(engine, world, "_cut"))) == 1
    commit()
    with pytest.raises(StaleWriter):
        driver.run_batch()
    assert job.watermark() == newest
    job.run(2)
    assert len(set(_counts(engine, world, "_cut"))) == 1
    assert job.watermark() > newest


def test_a_large_transaction_appears_at_once(world: Any, job: Any, engine: Engine, commit: Callable[..., None]) -> None:
    """It comes and is committed block by block, while progress names what is there of it: no query sees any of it
    before all of it is there. HEADRACE_TORN_ROWS is its size (`make torn-streaming`)."""
    commit()
    job.run(1)
    before = _counts(engine, world, "_cut")
    seen: list[int] = []

    def look(lsn: int) -> None:
        world.send(world.progress(lsn - 1))
        job.run(1)
        seen.append(sum(_counts(engine, world, "")) - sum(before))
        assert _counts(engine, world, "_cut") == before

    commit(rows=ROWS, between=look)
    assert len(seen) >= 8
    assert seen == sorted(set(seen)), "the fresh views saw a part of it behind every block"
    job.run(1)
    assert _counts(engine, world, "_cut") == (before[0] + ROWS // 2, before[1] + ROWS // 2)
