"""Two hundred shards are read in one batch."""

from collections.abc import Callable
from typing import Any

from glue_streaming.shards import list_shards

SHARDS = 200
LANES = 20


def test_two_hundred_shards_in_one_batch(make_world: Callable[..., Any], make_job: Callable[..., Any]) -> None:
    """Every shard has a task of its own, each lane's rows come in one commit, and a restart goes on behind them all."""
    world = make_world(shards=SHARDS)
    orders = world.schema("orders")
    for lane in range(LANES):
        world.send(world.data(orders, 100 + lane, [{"id": lane}], lane=str(lane)))
    world.send(world.progress(1_000))
    read: set[str] = set()

    class Kinesis:
        def __init__(self, client: Any) -> None:
            self._client = client

        def __getattr__(self, name: str) -> Any:
            return getattr(self._client, name)

        def get_shard_iterator(self, **request: Any) -> Any:
            read.add(request["ShardId"])
            return self._client.get_shard_iterator(**request)

    job = make_job(world, wrap=Kinesis)
    first = job.driver.run_batch()  # the table is not known yet
    report = job.driver.run_batch()
    assert read == set(list_shards(job.aws.client("kinesis"), world.stream))
    assert len(read) == SHARDS
    assert (first.rows + report.rows, report.commits, report.caught_up) == (LANES, 1, True)
    assert job.ids() == list(range(LANES))

    world.send(world.data(orders, 2_000, [{"id": LANES}], lane="7"))
    job.restart()
    again = job.driver.run_batch()
    assert (again.rows, again.duplicates) == (1, 0)
