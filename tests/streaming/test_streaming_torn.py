"""Whole transactions: a query over several cut views, with a commit to every table before each of its catalog reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from glue_streaming.errors import StaleWriter
from localaws.athena_engine import Engine
from localaws.athena_files import ObjectFiles
from tests.streaming.test_streaming_cut import activate

TABLES = ("orders", "items")


class GlueCatalog:
    """The catalog as the engine reads it."""

    def __init__(self, glue: Any) -> None:
        self._glue = glue

    def databases(self) -> Sequence[str]:
        return [item["Name"] for item in self._glue.get_databases()["DatabaseList"]]

    def tables(self, database: str) -> Sequence[dict[str, Any]]:
        return list(self._glue.get_tables(DatabaseName=database)["TableList"])

    def table(self, database: str, name: str) -> dict[str, Any] | None:
        try:
            return dict(self._glue.get_table(DatabaseName=database, Name=name)["Table"])
        except self._glue.exceptions.EntityNotFoundException:
            return None


@pytest.fixture
def engine(world: Any, tmp_path: Path) -> Iterator[Engine]:
    s3, names = world.server.client("s3"), count()

    def fetched(bucket: str, key: str) -> Path | None:
        path = tmp_path / f"{next(names)}-{key.rpartition('/')[2]}"
        try:
            s3.download_file(bucket, key, str(path))
        except ClientError:
            return None
        return path

    made = Engine(GlueCatalog(world.server.client("glue")), ObjectFiles(fetched))
    yield made
    made.close()


@pytest.fixture
def commit(world: Any, job: Any) -> Callable[..., None]:
    """Sends a transaction of several rows in two lanes of both tables, and says so; the job is still to load it.

    between: called behind each lane.
    """
    schemas, lsns = {name: world.schema(name) for name in TABLES}, count(100, 10)
    activate(world, job, *TABLES)

    def transaction(rows: int = 2, between: Callable[[], None] = lambda: None) -> None:
        lsn = next(lsns)
        for schema in schemas.values():
            for lane in ("0", "1"):
                ids = [{"id": lsn * 1_000_000 + n * 2 + int(lane)} for n in range(rows)]
                world.send(world.data(schema, lsn, ids, lane=lane))
                between()
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
    """It comes and is committed lane by lane; no query sees any of it before all of it is there."""
    commit()
    job.run(1)
    before = _counts(engine, world, "_cut")
    loaded = []

    def look() -> None:
        job.run(1)
        loaded.append(sum(_counts(engine, world, "")))
        assert _counts(engine, world, "_cut") == before

    commit(rows=20_000, between=look)
    assert loaded == [sum(before) + 20_000 * n for n in (1, 2, 3, 4)]
    job.run(1)
    assert _counts(engine, world, "_cut") == (before[0] + 40_000, before[1] + 40_000)
