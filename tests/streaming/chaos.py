"""`python -m tests.streaming.chaos`: kills the agent and the streaming job at random places and times, and compares.

A real PostgreSQL, the real agent, the laptop's AWS, and drivers that commit to real Iceberg tables. In every round
transactions are committed over several tables and lanes, and both sides are killed: at a named place, or after a
random time; now and then another driver is started beside the first, or the saved positions are lost. In the end every
change that the stream holds is in the lake once, no hole is open, and the lake's rows are the source's.
--seed plays the same places again; the times are the machine's.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import Any

from glue_streaming import failpoints as lake_failpoints
from glue_streaming.aws import Aws
from glue_streaming.lake_table import identifier
from glue_streaming.state import stream_state
from localaws.process import LocalAws, running
from ops.postgres_server import PostgresServer
from producer import failpoints as agent_failpoints
from tests.producer.conftest import Rig, make_table
from tests.streaming import kill_driver

TABLES = ("accounts", "orders")
_SETUP = """
CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL, note text);
CREATE TABLE orders (id int PRIMARY KEY, balance int NOT NULL, note text);
INSERT INTO accounts SELECT n, 0, repeat('x', 50) FROM generate_series(1, 200) n;
"""
_PLACES = ("snapshot.announced", "snapshot.rows", "snapshot.ended", "era.claimed", "slot.created")
"""Places of the agent that it passes only when it begins."""


@dataclass
class Chaos:
    """One history. `now` is the drivers' clock: what one has waited for is over for the next."""

    rig: Rig
    aws: LocalAws
    random: Random
    rows_per_transaction: int
    now: float = 1_800_000_000.0
    killed: dict[str, int] = field(default_factory=dict)
    agent: subprocess.Popen[bytes] | None = None
    driver: BaseProcess | None = None

    def round(self) -> None:
        self._agent()
        self._driver()
        self._work()
        other = self._started_driver("") if self.random.random() < 0.1 else None
        time.sleep(self.random.random())
        if self.random.random() < 0.5:
            self._kill_agent()
        if self.random.random() < 0.5:
            self._kill_driver("at a random time")
        if other is not None:
            other.join(60)
        if self.random.random() < 0.1:
            self._lose_positions()

    def settle(self) -> None:
        """Both run undisturbed to the end of what there is."""
        self._kill_agent()
        self._kill_driver("to settle")
        self.agent = self.rig.start()
        self.rig.until_complete(300)
        for _ in range(20):
            self.driver = self._started_driver("", batches=12)
            self.driver.join(120)
            if not self.problems():
                return

    def problems(self) -> list[str]:
        """What is wrong: positions that lack or are there twice, open holes, rows that differ from the source's."""
        arrived, wrong = self.rig.read(), []
        for name in TABLES:
            table = Aws().catalog.load_table(identifier(self.rig.name, name))
            rows = table.scan().to_arrow().to_pylist()
            log = sorted((row["_era"], row["_lsn"], row["_idx"]) for row in rows if row["_tier"] == "log")
            sent = sorted((row["_era"], row["_lsn"], row["_idx"]) for row in arrived.rows.get(name, []))
            if log != sent:
                missing, extra = set(sent) - set(log), len(log) - len(set(log))
                wrong.append(f"{name}: {len(missing)} changes are missing, {extra} are there twice")
            wrong += [f"{name}: a hole is open: {hole}" for hole in stream_state(table.properties).holes]
            if _newest(rows) != self._source(name):
                wrong.append(f"{name}: the lake's rows are not the source's")
        return wrong

    # ---- processes

    def _agent(self) -> None:
        """Starts the agent where it is not running; every other time it is to be killed at some place."""
        if self.agent is None or self.agent.poll() is not None:
            self._count("agent", self.agent.returncode if self.agent else 0)
            name = self.random.choice([place for place in agent_failpoints.NAMES if place not in _PLACES])
            armed = self.random.random() < 0.5
            self.agent = self.rig.start(failpoint=f"{name}:{self.random.randint(1, 20)}" if armed else "")

    def _driver(self) -> None:
        if self.driver is None or not self.driver.is_alive():
            self._count("driver", self.driver.exitcode if self.driver else 0)
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

    def _kill_agent(self) -> None:
        if self.agent is not None and self.agent.poll() is None:
            self.agent.send_signal(signal.SIGKILL)
            self.agent.wait()

    def _kill_driver(self, why: str) -> None:
        if self.driver is not None and self.driver.is_alive():
            self.driver.kill()
            self.driver.join()

    def _count(self, who: str, status: int | None) -> None:
        if status:
            key = f"{who} {'killed' if status == -signal.SIGKILL else f'ended with {status}'}"
            self.killed[key] = self.killed.get(key, 0) + 1

    def _lose_positions(self) -> None:
        dynamodb = self.aws.client("dynamodb")
        for item in dynamodb.scan(TableName="headrace-shards")["Items"]:
            dynamodb.delete_item(TableName="headrace-shards", Key={"job": item["job"], "shard": item["shard"]})

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

    def _source(self, table: str) -> dict[int, tuple[int, str]]:
        rows = (line.split("|") for line in self.rig.sql(f"SELECT id, balance, note FROM {table}").splitlines())
        return {int(key): (int(balance), note) for key, balance, note in rows}


def _newest(rows: list[dict[str, Any]]) -> dict[int, tuple[int, str]]:
    """The rows as they stand, from what was read by snapshots and changed since."""
    state: dict[int, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: (row["_era"], row["_lsn"], row["_idx"])):
        before = state.pop(row["id"], None)
        if row["_op"] != "d":
            note = before["note"] if row["_unchanged"] and before else row["note"]
            state[row["id"]] = {**row, "note": note}
    return {key: (row["balance"], row["note"]) for key, row in state.items()}


@contextmanager
def made(seed: int, rows_per_transaction: int) -> Iterator[Chaos]:
    """A fresh PostgreSQL, AWS, stream of two shards, and nothing running."""
    with tempfile.TemporaryDirectory(prefix="headrace-chaos-") as folder:
        Path(folder).chmod(0o755)
        postgres = PostgresServer(Path(folder) / "pg", settings={"fsync": "off", "wal_level": "logical"})
        postgres.start()
        try:
            with running(Path(folder) / "aws") as aws:
                kinds = "schemas=subject:S version:N,sources=source:S item:S,shards=job:S shard:S"
                for table in f"{kinds},settings=job:S name:S,tables=table:S".split(","):
                    name, _, keys = table.partition("=")
                    _make(aws.client("dynamodb"), f"headrace-{name}", keys)
                aws.client("s3").create_bucket(Bucket="headrace-lake")
                kinesis = aws.client("kinesis")
                kinesis.create_stream(StreamName="chaos", ShardCount=2)
                kinesis.get_waiter("stream_exists").wait(StreamName="chaos")
                agent = Path(folder) / "agent"
                agent.mkdir()
                rig = Rig("chaos", agent, postgres, aws, lanes=3)
                postgres.psql("CREATE DATABASE chaos")
                rig.sql(_SETUP)
                chaos = Chaos(rig, aws, Random(seed), rows_per_transaction)
                try:
                    yield chaos
                finally:
                    chaos._kill_driver("at the end")
                    rig.stop()
        finally:
            postgres.stop("immediate")


def _make(dynamodb: Any, name: str, keys: str) -> None:
    if " " in keys:
        make_table(dynamodb, name, keys)
        return
    key, kind = keys.split(":")
    dynamodb.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": kind}],
        KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Kills the agent and the streaming job, and compares lake and source.")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=20_000, help="rows of a large transaction")
    arguments = parser.parse_args()
    with made(arguments.seed, arguments.rows) as chaos:
        os.environ.update(chaos.aws.environment())
        for number in range(1, arguments.rounds + 1):
            chaos.round()
            if number % 10 == 0 or number == arguments.rounds:
                chaos.settle()
                wrong = chaos.problems()
                said = "; ".join(wrong) or "the lake holds everything once"
                print(f"round {number}: {chaos.killed}; {said}", flush=True)
                if wrong:
                    return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
