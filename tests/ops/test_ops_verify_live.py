"""The comparison at the end of the whole path: agent, Kinesis, the streaming job's batches, folds, Athena's views."""

from __future__ import annotations

import io
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from glue_streaming import aws as glue_aws
from glue_streaming import fold_job, maintain_job
from glue_streaming.batch import Driver
from glue_streaming.load import load_shard
from glue_streaming.settings import parse_arguments
from localaws.process import LocalAws
from ops import erase, tables
from ops.athena import Athena
from ops.aws import Aws
from ops.names import Names, databases
from ops.postgres_server import PostgresServer
from ops.verify import Verification, Verifier
from producer.settings import load
from tests.fold.test_fold_maintenance import maintain
from tests.producer.conftest import Rig

pytestmark = pytest.mark.slow

SOURCE = "live"
KEY = b"k" * 32
SETUP = """
CREATE TABLE people (id int PRIMARY KEY, ssn text, email text, card text);
INSERT INTO people SELECT n, 'secret' || n, 'p' || n || '@b', '1234' || n FROM generate_series(1, 50) n;
CREATE TABLE orders (id int PRIMARY KEY, region text, note text); ALTER TABLE orders REPLICA IDENTITY FULL;
INSERT INTO orders SELECT n, (ARRAY['EU', 'US', NULL])[1 + n % 3], 'x' FROM generate_series(1, 60) n;
CREATE TABLE notes (n int, doc text, x float8, amount numeric(9,2), tags text[], at timestamptz, big text);
ALTER TABLE notes REPLICA IDENTITY FULL; ALTER TABLE notes ALTER big SET STORAGE EXTERNAL;
CREATE TABLE parts (id int, v text) PARTITION BY RANGE (id); ALTER TABLE parts REPLICA IDENTITY FULL;
CREATE TABLE parts1 PARTITION OF parts FOR VALUES FROM (0) TO (10); ALTER TABLE parts1 REPLICA IDENTITY FULL;
CREATE TABLE parts2 PARTITION OF parts FOR VALUES FROM (10) TO (20); ALTER TABLE parts2 REPLICA IDENTITY FULL;
INSERT INTO parts SELECT n % 20, 'a' FROM generate_series(1, 60) n;
CREATE TABLE early (id int PRIMARY KEY, v text); INSERT INTO early VALUES (1, 'a'), (2, 'b');
"""
NOTES = """
INSERT INTO notes SELECT n % 3, 'a', (ARRAY[0, -0.0, 'NaN'])[1 + n % 3], (ARRAY[1.5, 'NaN', NULL])[1 + n % 3],
    (ARRAY['{a,NULL}', '{{1},{2}}', NULL])[1 + n % 3]::text[],
    (ARRAY['infinity', '2026-01-01', NULL])[1 + n % 3]::timestamptz, repeat('y', 3000) FROM generate_series(1, 30) n;
INSERT INTO notes SELECT NULL FROM generate_series(1, 4);
"""
CHANGES = """
ALTER TABLE early RENAME TO late; UPDATE late SET v = 'c' WHERE id = 1; INSERT INTO late VALUES (3, 'd');
UPDATE people SET email = 'new' || id, card = NULL WHERE id % 7 = 0; DELETE FROM people WHERE id = 3;
UPDATE orders SET region = 'US' WHERE id % 6 = 0; UPDATE orders SET region = 'EU' WHERE id % 5 = 0;
UPDATE orders SET note = 'y' WHERE id % 4 = 0; DELETE FROM orders WHERE id > 50;
UPDATE parts SET id = id + 10 WHERE id < 3; DELETE FROM parts WHERE id = 19;
"""
DELETES = """
DELETE FROM notes WHERE ctid IN (SELECT ctid FROM notes WHERE n = 0 LIMIT 3);
DELETE FROM notes WHERE ctid IN (SELECT ctid FROM notes WHERE n IS NULL LIMIT 3);
UPDATE notes SET doc = 'b' WHERE ctid IN (SELECT ctid FROM notes WHERE n = 1 LIMIT 4);
INSERT INTO notes SELECT * FROM notes WHERE n = 2 LIMIT 2;
"""
TABLES = """
[[tables]]
name = "public.people"
rename = "clients"
exclude_columns = ["ssn"]
hash_columns = ["email"]
mask_columns = { card = 3 }
[[tables]]
name = "public.orders"
where = "region = 'EU'"
[[tables]]
name = "public.notes"
lanes = 2
[[tables]]
name = "public.parts"
[[tables]]
name = "public.early"
"""
LAKE = ("clients", "early", "notes", "orders", "parts")


@dataclass
class ShapedRig(Rig):
    """The agent under a configuration that renames, hides and filters."""

    @property
    def config(self) -> Path:
        path = super().config
        written = path.read_text().partition("[[tables]]")[0]
        written = written.replace("[source]", f'[source]\nhash_key_file = "{self.folder}/hash.key"')
        path.write_text(written + TABLES)
        return path


@dataclass
class LivePath:
    """What runs behind the agent: batches on a clock of their own, and folds when asked for."""

    server: LocalAws
    rig: Rig
    aws: Aws
    now: float = 1_800_000_000.0
    failed: list[BaseException] = field(default_factory=list)

    @contextmanager
    def loading(self) -> Iterator[None]:
        """The streaming job, batch by batch, for the length of a `with` block."""
        ended = threading.Event()
        aws = glue_aws.Aws()
        driver = Driver(
            aws,
            parse_arguments(self._arguments()),
            lambda tasks: [load_shard(task, aws.client("kinesis"), aws.client("s3"), aws.io) for task in tasks],
            lambda: self.now,
        )

        def run() -> None:
            try:
                while not ended.wait(0.4):
                    driver.run_batch()
                    self.now += 5.0
            except BaseException as error:
                self.failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def fold(self, kind: str, *names: str) -> None:
        words = ["--tables", ",".join(f"{SOURCE}.{name}" for name in names), "--kind", kind]
        assert fold_job.main([*words, "--fold_horizon_seconds", "5"]) is None

    def lake(self) -> dict[str, tables.LakeTable]:
        return {table.name: table for table in tables.lake_tables(self.aws.client("glue"), SOURCE)}

    def activated(self) -> dict[str, int]:
        return {name: table.fold.activated_through for name, table in self.lake().items()}

    def in_cut(self) -> set[str]:
        found = self.aws.client("glue").get_tables(DatabaseName=f"{SOURCE}_cut")["TableList"]
        return {str(table["Name"]) for table in found}

    def until_activated(self, *names: str, after: int = 0, seconds: float = 600) -> None:
        """Folds until a snapshot of each table, newer than that of the number `after`, is what its views show.

        A view of the cut comes only with a watermark that has reached the fold line: maybe a fold later.
        """
        deadline = time.monotonic() + seconds
        while left := {name for name in names if self.activated().get(name, 0) <= after} | (set(names) - self.in_cut()):
            assert not self.failed, self.failed
            assert time.monotonic() < deadline, f"{self.activated()}\n{self.rig.log[-3000:]}"
            time.sleep(0.5)
            if there := left & self.lake().keys():
                self.fold("auto", *there)

    def athena(self) -> Athena:
        return Athena(self.aws.client("athena"), Names().workgroup)

    def verify(self, *only: str, **otherwise: Any) -> Verification:
        """otherwise: what the configuration says of the first table in place of what it was captured under."""
        settings = load(self.rig.config)
        settings = replace(settings, tables=(replace(settings.tables[0], **otherwise), *settings.tables[1:]))
        found = Verifier(settings, self.athena(), self.aws.client("glue")).run(only)
        assert not self.failed, self.failed
        return found

    def erase(self, table: str, key: str) -> None:
        """Asks for it, carries it out, and lets the maintenance remove what is left, ten days later."""
        erase.request(erase.Place(self.aws.client, SOURCE, Names()), table, [key], None, "anna")
        item = {"job": "live-fold", "name": "longest_query_seconds", "value": "0"}
        self.aws.client("dynamodb").put_item(
            TableName=Names().dynamodb("settings"), Item={name: {"S": value} for name, value in item.items()}
        )
        words = ["--settle_seconds", "0", "--fold_job", "live-fold"]
        erasures = ["--source", SOURCE, "--lake_bucket", Names().bucket, "--only", "erasures"]
        assert maintain_job.main([*erasures, *words]) == 0
        self.server.age_objects(Names().bucket, f"lake/{SOURCE}/", 10 * 86_400.0)
        maintain(self.server, SOURCE, bucket=Names().bucket, more=words)

    def tiers(self, table: str, key: str) -> set[str]:
        """Where the lake has rows of the key."""
        found = self.athena().run(f"SELECT DISTINCT _tier FROM {SOURCE}_lake.{table} WHERE id = {key}")
        return {str(row[0]) for row in found.rows}

    def objects(self, table: str, key: int) -> list[str]:
        """The data files that hold the key, whether the table knows them or not."""
        s3, bucket = self.aws.client("s3"), Names().bucket
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"lake/{SOURCE}/{table}/")
        names = [item["Key"] for page in pages for item in page["Contents"] if item["Key"].endswith(".parquet")]
        bodies = {name: io.BytesIO(s3.get_object(Bucket=bucket, Key=name)["Body"].read()) for name in names}
        return [n for n, body in bodies.items() if key in pq.read_table(body, columns=["id"])["id"].to_pylist()]

    def _arguments(self) -> list[str]:
        given = {"source": SOURCE, "stream_name": SOURCE, "lake_bucket": Names().bucket, "fold_horizon_seconds": "5"}
        return [word for name, value in given.items() for word in (f"--{name}", value)]


@pytest.fixture
def path(server: LocalAws, aws: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LivePath]:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    for database in databases(SOURCE):
        aws.client("glue").create_database(DatabaseInput={"Name": database})
    kinesis = aws.client("kinesis")
    kinesis.create_stream(StreamName=SOURCE, ShardCount=2)
    kinesis.get_waiter("stream_exists").wait(StreamName=SOURCE, WaiterConfig={"Delay": 1})
    (tmp_path / "hash.key").write_bytes(KEY)
    with tempfile.TemporaryDirectory(prefix="headrace-pg-") as folder:
        Path(folder).chmod(0o755)
        postgres = PostgresServer(Path(folder) / "pg", settings={"fsync": "off"}).start()
        postgres.psql(f"CREATE DATABASE {SOURCE}")
        rig = ShapedRig(SOURCE, tmp_path, postgres, server, look_seconds=1.0)
        try:
            yield LivePath(server, rig, aws)
        finally:
            rig.stop()
            postgres.stop("immediate")


def _all_equal(path: LivePath) -> None:
    found = path.verify()
    assert found.equal, [table for table in found.tables if not table.equal]
    assert tuple(table.table for table in found.tables) == LAKE
    assert not any(table.fold.totals.unmatched_rows for table in path.lake().values())
    notes = path.rig.sql("SELECT n, doc, amount, count(*) FROM notes GROUP BY 1, 2, 3").splitlines()
    shown = path.athena().run(
        "SELECT n, doc, coalesce(element_at(_raw, 'amount'), CAST(amount AS varchar)), count(*) "
        f"FROM {SOURCE}.notes GROUP BY 1, 2, 3"
    )
    assert sorted(notes) == sorted("|".join(cell or "" for cell in row) for row in shown.rows)


def test_lake_equals_the_source_at_the_end_of_the_path(path: LivePath) -> None:
    """Renamed, hidden and filtered tables, and those without a key, in the log, in delta and base; the agent is killed,
    a table truncated, and the structure of one without a key changed, so that it is read anew; then a key is erased
    and the maintenance runs: no file holds it any more, and all tables are still equal."""
    rig = path.rig
    rig.sql(SETUP + NOTES)
    agent = rig.start()
    with path.loading():
        path.until_activated(*LAKE)
        rig.sql(CHANGES + NOTES + DELETES)
        _all_equal(path)
        path.fold("minor", "clients", "orders", "notes")
        agent.kill()
        agent.wait()
        rig.sql("TRUNCATE orders;" + NOTES + DELETES + "ALTER TABLE notes ADD later int DEFAULT 7;" + DELETES)
        first = path.activated()["notes"]
        rig.start()
        path.until_activated("notes", after=first)
        rig.sql(DELETES)
        path.fold("major", "orders", "notes")
        rig.sql(DELETES + "DELETE FROM people WHERE id = 14;")
        assert path.verify("clients").equal
        assert path.tiers("clients", "14") == {"log", "delta", "base", "history"}
        assert path.objects("clients", 14)
        path.erase("clients", "14")
        assert path.tiers("clients", "14") == set()
        assert path.objects("clients", 14) == []
        _all_equal(path)
        assert not path.verify("clients", mask_columns={"card": 2}).equal
