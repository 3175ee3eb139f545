"""`python -m tests.streaming.chaos`: kills the agent and the streaming job at random places and times, and compares.

A real PostgreSQL, the real agent, the laptop's AWS, and drivers that commit to real Iceberg tables. In every round
transactions are committed over several tables and lanes, and both sides are killed: at a named place, or after a
random time; now and then another driver is started beside the first, a fold runs beside both, or the saved positions
are lost. Every ten rounds both run undisturbed until they get no further: then every change that the stream holds must
be in the lake once, no hole open, and both views, the fresh one and the cut's, must show the source's rows.
--seed plays the same places again; the times are the machine's. Exit status 1 where anything is wrong.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np
from pyiceberg.expressions import In, NotEqualTo
from pyiceberg.table import Table

from glue_streaming import failpoints as lake_failpoints
from glue_streaming import fold_job, watermark_view
from glue_streaming.aws import Aws
from glue_streaming.lake_table import identifier
from glue_streaming.state import fold_state, stream_state
from localaws.athena_engine import Engine
from localaws.process import LocalAws, running
from ops.names import DYNAMODB_KEYS
from ops.postgres_server import PostgresServer
from ops.provision import dynamodb_table
from producer import failpoints as agent_failpoints
from schemas.registry import Registry
from tests.producer.conftest import Arrived, Rig
from tests.streaming import athena, kill_driver

TABLES: Final = ("accounts", "orders")
_SETUP: Final = """
CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL, note text);
CREATE TABLE orders (id int PRIMARY KEY, balance int NOT NULL, note text);
INSERT INTO accounts SELECT n, 0, repeat('x', 50) FROM generate_series(1, 200) n;
"""
_PLACES: Final = ("snapshot.announced", "snapshot.rows", "snapshot.ended", "era.claimed", "slot.created")
"""Places of the agent that it passes only when it begins."""
_STUCK_DRIVERS: Final = 5
"""So many drivers in a row that change nothing end the waiting for them."""
_PATIENCE_SECONDS: Final = 300.0
"""A process that moves nothing for so long is stuck: a busy machine is slow, but gets on."""


@dataclass
class Patience:
    """Ends a wait when what is waited for has not moved for long, and not because it takes long."""

    who: str
    last: Any = None
    since: float = field(default_factory=time.monotonic)

    def look(self, state: Any, said: str = "") -> None:
        if state != self.last:
            self.last, self.since = state, time.monotonic()
        elif time.monotonic() - self.since > _PATIENCE_SECONDS:
            raise AssertionError(f"{self.who} has not got on for {_PATIENCE_SECONDS:.0f} s: {state}; {said}")


@dataclass
class Sent:
    """What a reader of its own makes of the stream, read once from its beginning to its end."""

    rig: Rig
    arrived: Arrived = field(default_factory=lambda: Arrived({}, {}, [], [], 0, {}))
    read_to: dict[str, str] = field(default_factory=dict)
    found: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))

    def read_on(self) -> None:
        kinesis, registry = (
            self.rig.aws.client("kinesis"),
            Registry(self.rig.aws.client("dynamodb"), "headrace-schemas"),
        )
        for shard in [item["ShardId"] for item in kinesis.list_shards(StreamName=self.rig.name)["Shards"]]:
            for record in self._records(kinesis, shard):
                self.arrived.take(record["Data"], registry)
                self.read_to[shard] = record["SequenceNumber"]
        for table, rows in self.arrived.rows.items():
            self.found[table].append(np.array([[r["_era"], r["_lsn"], r["_idx"]] for r in rows], np.int64))
        self.arrived.check_progress()
        self.arrived.rows.clear()

    def reaches(self, lsn: int) -> bool:
        """Whether all up to lsn is there, and a snapshot of each table."""
        self.read_on()
        return self.arrived.through >= lsn and self.arrived.snapshotted >= set(TABLES)

    @property
    def moved(self) -> Any:
        return (
            self.arrived.through,
            len(self.arrived.ends),
            {key: lane.mark for key, lane in self.arrived.lanes.items()},
        )

    def positions(self, table: str) -> Any:
        """Of every change of the table, in order."""
        return _ordered(np.concatenate([np.empty((0, 3), np.int64), *self.found[table]]))

    def _records(self, kinesis: Any, shard: str) -> Iterator[dict[str, Any]]:
        start = {"ShardIteratorType": "TRIM_HORIZON"}
        if shard in self.read_to:
            start = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": self.read_to[shard]}
        iterator = kinesis.get_shard_iterator(StreamName=self.rig.name, ShardId=shard, **start)["ShardIterator"]
        while iterator:
            page = kinesis.get_records(ShardIterator=iterator)
            yield from page["Records"]
            iterator = page.get("NextShardIterator") if page["MillisBehindLatest"] else None


@dataclass
class Chaos:
    """One history. `now` is the drivers' clock: what one has waited for is over for the next."""

    rig: Rig
    aws: LocalAws
    random: Random
    rows_per_transaction: int
    sent: Sent
    now: float = 1_800_000_000.0
    told: Counter[str] = field(default_factory=Counter)
    agent: subprocess.Popen[bytes] | None = None
    driver: BaseProcess | None = None

    def round(self) -> None:
        self._agent()
        self._driver()
        self._work()
        other = self._started_driver("") if self.random.random() < 0.1 else None
        if self.random.random() < 0.2:
            self.fold()
        time.sleep(self.random.random())
        if self.random.random() < 0.5:
            self._end_agent()
        if self.random.random() < 0.5:
            self._end_driver()
        if other is not None:
            other.join()
            self._count("driver", other.exitcode)
        if self.random.random() < 0.1:
            self._lose_positions()

    def settle(self) -> list[str]:
        """Both run undisturbed to the end of what there is, for as long as they get on; what is wrong then."""
        self._end_agent()
        self._end_driver()
        self.agent = self.rig.start()
        self._await_agent()
        before, stuck = self._reached(), 0
        while wrong := self.problems():
            if stuck == _STUCK_DRIVERS:
                return wrong
            self._run_driver()
            self.fold()
            reached = self._reached()
            before, stuck = reached, stuck + 1 if reached == before else 0
        return []

    def problems(self) -> list[str]:
        """What is wrong: changes that lack or are there twice, open holes, views that differ from the source."""
        wrong = []
        with (
            tempfile.TemporaryDirectory(dir=self.rig.folder) as folder,
            athena.opened(self.aws, Path(folder)) as engine,
        ):
            for name in TABLES:
                wrong += self._wrong_changes(name)
                wrong += [f"{name}: a hole is open: {hole}" for hole in stream_state(self._parameters(name)).holes]
                source = self.rig.sql(f"SELECT id, balance, note FROM {name} ORDER BY id").splitlines()
                for database in (self.rig.name, f"{self.rig.name}_cut"):
                    if _shown(engine, f"{database}.{name}") != source:
                        wrong.append(f"the view {database}.{name} does not show the source's rows")
        return wrong

    def fold(self) -> None:
        """The job that the workflow runs, beside whatever else runs."""
        words = ["--source", self.rig.name, "--kind", self.random.choice(("minor", "major"))]
        with (self.rig.folder / "fold.log").open("a") as log, redirect_stdout(log), redirect_stderr(log):
            status = fold_job.main([*words, "--fold_horizon_seconds", "5"])
        self.told["folds" if status == 0 else f"folds ended with {status}"] += 1

    def _wrong_changes(self, name: str) -> list[str]:
        sent, found = self.sent.positions(name), self._positions(name)
        if np.array_equal(sent, found):
            return []
        wanted, got = ({tuple(row) for row in rows.tolist()} for rows in (sent, found))
        missing, twice, strange = len(wanted - got), len(found) - len(got), len(got - wanted)
        return [f"{name}: of {len(sent)} changes {missing} are missing, {twice} are there twice, {strange} never came"]

    def _positions(self, name: str) -> Any:
        """Of every change that the lake holds, in order; what snapshots read is none."""
        table = self._table(name)
        if table is None:
            return np.empty((0, 3), np.int64)
        wanted = In("_tier", ("log", "history")) & NotEqualTo("_op", "r")
        rows = table.scan(wanted, selected_fields=("_era", "_lsn", "_idx")).to_arrow()
        return _ordered(np.column_stack([rows[column].to_numpy().astype(np.int64) for column in rows.column_names]))

    def _table(self, name: str) -> Table | None:
        catalog = Aws().catalog
        known = identifier(self.rig.name, name)
        return catalog.load_table(known) if catalog.table_exists(known) else None

    def _parameters(self, name: str) -> dict[str, str]:
        table = self._table(name)
        return {} if table is None else table.properties

    # ---- waiting for as long as something moves

    def _await_agent(self) -> None:
        """Until the stream holds everything that is committed."""
        lsn = int(self.rig.sql("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))
        self.rig.sql("SELECT pg_logical_emit_message(true, 'test', 'past the last change')")
        patience = Patience("the agent")
        while not self.sent.reaches(lsn):
            assert self.agent is not None and self.agent.poll() is None, f"the agent ended: {self.rig.log[-4000:]}"
            patience.look(self.sent.moved, said=f"it is to pass {lsn}; {self.rig.log[-4000:]}")
            time.sleep(0.3)

    def _run_driver(self) -> None:
        """A driver's dozen batches; each of them rewrites the watermark."""
        self.driver = self._started_driver("", batches=12)
        patience = Patience("the streaming job")
        while self.driver.is_alive():
            self.driver.join(1)
            patience.look((self._reached(), watermark_view.read(self.aws.client("glue"), self.rig.name).version))
        self._count("driver", self.driver.exitcode)

    def _reached(self) -> Any:
        """How far the tables are; nothing that moves with the clock alone."""
        states = [(stream_state(p), fold_state(p)) for p in map(self._parameters, TABLES)]
        return [(s.marks, s.holes, s.snapshots, f.line, f.activated_through) for s, f in states]

    # ---- processes

    def _agent(self) -> None:
        """Starts the agent where it is not running; every other time it is to be killed at some place."""
        if self.agent is None or self.agent.poll() is not None:
            self._end_agent()
            name = self.random.choice([place for place in agent_failpoints.NAMES if place not in _PLACES])
            armed = self.random.random() < 0.5
            self.agent = self.rig.start(failpoint=f"{name}:{self.random.randint(1, 20)}" if armed else "")

    def _driver(self) -> None:
        if self.driver is None or not self.driver.is_alive():
            self._end_driver()
            name = self.random.choice(lake_failpoints.NAMES)
            armed = self.random.random() < 0.7
            self.driver = self._started_driver(f"{name}:{self.random.randint(1, 3)}" if armed else "")

    def _started_driver(self, failpoint: str, batches: int = 40) -> BaseProcess:
        self.now += 1_000
        given = {
            "source": self.rig.name,
            "stream_name": self.rig.name,
            "lake_bucket": "headrace-lake",
            "dynamodb_prefix": "headrace",
            "fold_horizon_seconds": "5",
        }
        arguments = [word for name, value in given.items() for word in (f"--{name}", value)]
        return kill_driver.start(self.aws.environment(), arguments, now=self.now, batches=batches, failpoint=failpoint)

    def _end_agent(self) -> None:
        """Kills it where it still runs, and counts how it ended."""
        if self.agent is not None:
            self.agent.kill()
            self._count("agent", self.agent.wait())
            self.agent = None

    def _end_driver(self) -> None:
        if self.driver is not None:
            self.driver.kill()
            self.driver.join()
            self._count("driver", self.driver.exitcode)
            self.driver = None

    def _count(self, who: str, status: int | None) -> None:
        said = {0: "ended", -signal.SIGKILL: "killed", kill_driver.SUPERSEDED: "superseded"}
        self.told[f"{who} {said.get(status or 0, f'ended with {status}')}"] += 1

    def _lose_positions(self) -> None:
        dynamodb = self.aws.client("dynamodb")
        for item in dynamodb.scan(TableName="headrace-shards")["Items"]:
            dynamodb.delete_item(TableName="headrace-shards", Key={"job": item["job"], "shard": item["shard"]})
        self.told["positions lost"] += 1

    # ---- the source

    def _work(self) -> None:
        """Transactions over both tables; one in five is large."""
        for _ in range(self.random.randint(1, 4)):
            first = self.random.randint(1, 150)
            rows = self.rows_per_transaction if self.random.random() < 0.2 else 5
            at = self.random.randint(1_000, 1_000_000)
            self.rig.sql(
                f"""BEGIN;
                UPDATE accounts SET balance = balance - 1 WHERE id BETWEEN {first} AND {first + 5};
                INSERT INTO orders SELECT n, 1, md5(n::text) FROM generate_series({at}, {at + rows}) n
                ON CONFLICT (id) DO UPDATE SET balance = orders.balance + 1;
                DELETE FROM orders WHERE id % 97 = {self.random.randint(0, 96)};
                COMMIT;"""
            )
            self.told["transactions"] += 1


def _ordered(positions: Any) -> Any:
    return positions[np.lexsort(positions.T[::-1])]


def _shown(engine: Engine, view: str) -> list[str] | None:
    """The view's rows as psql writes them; None where there is no such view yet, or it raises."""
    try:
        rows = engine.run(f"SELECT id, balance, note FROM {view} ORDER BY id").rows()
    except Exception:
        return None
    return ["|".join(value or "" for value in row) for row in rows]


@contextmanager
def made(seed: int, rows_per_transaction: int) -> Iterator[Chaos]:
    """A fresh PostgreSQL, AWS, stream of two shards, and nothing running."""
    with tempfile.TemporaryDirectory(prefix="headrace-chaos-") as folder:
        Path(folder).chmod(0o755)
        postgres = PostgresServer(Path(folder) / "pg", settings={"fsync": "off", "wal_level": "logical"})
        postgres.start()
        try:
            with running(Path(folder) / "aws") as aws:
                _make_services(aws)
                agent = Path(folder) / "agent"
                agent.mkdir()
                rig = Rig("chaos", agent, postgres, aws, lanes=3)
                postgres.psql("CREATE DATABASE chaos")
                rig.sql(_SETUP)
                chaos = Chaos(rig, aws, Random(seed), rows_per_transaction, Sent(rig))
                try:
                    yield chaos
                finally:
                    chaos._end_driver()
                    rig.stop()
        finally:
            postgres.stop("immediate")


def _make_services(aws: LocalAws) -> None:
    for table in DYNAMODB_KEYS:
        dynamodb_table(aws.client("dynamodb"), table, f"headrace-{table}")
    aws.client("s3").create_bucket(Bucket="headrace-lake")
    for database in ("chaos", "chaos_history"):
        aws.client("glue").create_database(DatabaseInput={"Name": database})
    kinesis = aws.client("kinesis")
    kinesis.create_stream(StreamName="chaos", ShardCount=2)
    kinesis.get_waiter("stream_exists").wait(StreamName="chaos")


def main() -> int:
    parser = argparse.ArgumentParser(description="Kills the agent and the streaming job, and compares lake and source.")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=20_000, help="rows of a large transaction")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="begin no further ten rounds behind so many"
    )
    arguments = parser.parse_args()
    began, number, wrong = time.monotonic(), 0, []
    print(f"seed {arguments.seed}, {arguments.rounds} rounds, {arguments.rows} rows in a large transaction", flush=True)
    with made(arguments.seed, arguments.rows) as chaos:
        os.environ.update(chaos.aws.environment())
        while number < arguments.rounds and not wrong and time.monotonic() - began < 60 * arguments.minutes:
            for _ in range(min(10, arguments.rounds - number)):
                chaos.round()
                number += 1
            wrong = chaos.settle()
            said = "; ".join(wrong) or "the lake holds everything once"
            print(f"{time.monotonic() - began:6.0f} s, round {number}: {said}", flush=True)
    changes = sum(len(chaos.sent.positions(table)) for table in TABLES)
    told = ", ".join(f"{what} {times}" for what, times in sorted(chaos.told.items()))
    verdict = "WRONG" if wrong else "all right"
    print(f"{verdict}: seed {arguments.seed}, {number} rounds, {changes} changes, {told}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
