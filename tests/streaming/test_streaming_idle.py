"""A shard that has nothing costs no Spark job, and nothing that a task would find is passed over."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from glue_streaming.idle_shards import WARM_SECONDS, IdleShards
from glue_streaming.raw import RawRange
from glue_streaming.shards import Start
from glue_streaming.task import LaneKey, Outcome, Replay, Task


class Kinesis:
    """A page for each shard, whatever is asked for."""

    def __init__(self) -> None:
        self.pages: dict[str, dict[str, Any]] = {}
        self.refuses = False

    def get_shard_iterator(self, **request: Any) -> dict[str, str]:
        if self.refuses and request["ShardIteratorType"] != "TRIM_HORIZON":
            raise ClientError({"Error": {"Code": "InvalidArgumentException", "Message": ""}}, "GetShardIterator")
        return {"ShardIterator": request["ShardId"]}

    def get_records(self, **request: Any) -> dict[str, Any]:
        page = {"Records": [], "MillisBehindLatest": 0, "NextShardIterator": "next"}
        return {**page, **self.pages.get(request["ShardIterator"], {})}


class World:
    """Tasks of two shards; what was run of them, batch by batch, and what a run is told to find."""

    def __init__(self) -> None:
        self.now, self.kinesis = 1_000.0, Kinesis()
        self.ran: list[list[str]] = []
        self.blocks = 0
        self._shards = IdleShards(self.kinesis, self._run, lambda: self.now)

    def batch(self, **change: Any) -> list[Outcome]:
        return self._shards.run([replace(task(name), **change) for name in ("a", "b")])

    def _run(self, tasks: Any) -> list[Outcome]:
        self.ran.append([task.shard for task in tasks])
        return [Outcome(task.shard, at_tip=True, blocks=self.blocks) for task in tasks]


def task(shard: str) -> Task:
    return Task(1, "stream", shard, Start("7"), 1_000, 1.0, "lake", frozenset({"shop"}), {})


def test_what_was_empty_and_still_is_runs_no_task() -> None:
    """Its outcome is the one that its task would have had."""
    world = World()
    world.batch()
    outcomes = world.batch()
    assert world.ran == [["a", "b"]]
    assert outcomes == [Outcome("a", at_tip=True), Outcome("b", at_tip=True)]


def test_what_was_not_empty_is_not_looked_at_first() -> None:
    """A stream that flows pays for no look."""
    world = World()
    world.blocks = 1
    world.batch()
    world.batch()
    assert world.ran == [["a", "b"], ["a", "b"]]


RECORD = {"SequenceNumber": "8", "Data": b"x", "PartitionKey": "k"}


def a_record(kinesis: Kinesis) -> None:
    kinesis.pages["b"] = {"Records": [RECORD]}


def an_end(kinesis: Kinesis) -> None:
    kinesis.pages["b"] = {"NextShardIterator": None}


def a_new_stream(kinesis: Kinesis) -> None:
    kinesis.refuses = True


@pytest.mark.parametrize(("happens", "runs"), [(a_record, ["b"]), (an_end, ["b"]), (a_new_stream, ["a", "b"])])
def test_whatever_a_task_would_tell_runs_it(happens: Callable[[Kinesis], None], runs: list[str]) -> None:
    """A record, the end of the shard, a sequence number that the stream does not know."""
    world = World()
    world.batch()
    happens(world.kinesis)
    world.batch()
    assert world.ran[1] == runs


def test_a_replay_is_run() -> None:
    """It does not read the shard."""
    world = World()
    world.batch()
    world.batch(replay=Replay(LaneKey("shop", "orders", "0"), RawRange("lake", "raw/shop/a", "1", "2")))
    assert world.ran[1] == ["a", "b"]


def test_workers_are_kept_warm() -> None:
    """Spark ends a worker that was idle for a minute: all is run before that."""
    world = World()
    world.batch()
    world.now += WARM_SECONDS
    world.batch()
    world.batch()
    assert world.ran == [["a", "b"], ["a", "b"]]
