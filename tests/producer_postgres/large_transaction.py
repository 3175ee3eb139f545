"""A large transaction into a spool, in a process of its own: how much memory that takes, as JSON on standard output.

`python -m tests.producer_postgres.large_transaction` makes a server of its own (make large-transaction);
with --dsn, --slot, --publication and --spool it only captures.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from ops.postgres_server import PostgresServer
from producer.blocks import Gatherer
from producer.durable_end import DurableEnd
from producer.intake import Intake
from producer.postgres.capture import Capture
from producer.postgres.identity import prepare
from producer.postgres.source import PostgresSource, TableChoice
from producer.spool import Spool
from tests.memory import peak_bytes

ROW_BYTES = 640


@dataclass(frozen=True)
class Taken:
    """changes: of the transaction; durable_before: whether anything was confirmed before it had committed."""

    changes: int
    blocks: int
    spooled_bytes: int
    before_bytes: int
    most_bytes: int
    cpu_seconds: float


def take(source: PostgresSource, spool_path: Path, rows: int) -> Taken:
    """Capture until `rows` changes are durable."""
    spool = Spool(spool_path, 8 * 1024**3)
    spool.open_era(1, DurableEnd(1, 0, 0, 0))
    gatherer = Gatherer(source.name, 512 * 1024, {})
    with Capture(source, era=1, after_lsn=0) as capture:
        start = DurableEnd(1, 0, 0, 0)
        intake = Intake(spool, gatherer, start, lambda _: 1, capture.confirm, linger_seconds=0.05)
        before, durable = peak_bytes(), 0
        while durable < rows:
            intake.take(capture.poll(intake.due_in()))
            intake.flush_if_due()
            end = spool.durable_end()
            durable = intake.captured if end is not None and end.lsn == intake.end.lsn > 0 else 0
    usage = resource.getrusage(resource.RUSAGE_SELF)
    totals = spool.totals()
    spool.close()
    seconds = round(usage.ru_utime + usage.ru_stime, 1)
    return Taken(intake.captured, totals.spooled_blocks, totals.pending_bytes, before, peak_bytes(), seconds)


def in_a_process(source: PostgresSource, spool_path: Path, rows: int) -> Taken:
    """`take` where nothing else has used memory."""
    command = [sys.executable, "-m", __spec__.name if __name__ == "__main__" else __name__]
    words = {"dsn": source.dsn, "slot": source.slot, "publication": source.publication, "spool": str(spool_path)}
    options = [word for name, value in words.items() for word in (f"--{name}", value)]
    streamed = ["--streamed", str(source.streamed)] if source.streamed else []
    done = subprocess.run(
        [*command, "--rows", str(rows), *options, *streamed], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise AssertionError(done.stderr)
    return Taken(**json.loads(done.stdout))


def fill(rows: int) -> str:
    """One transaction, of rows of ROW_BYTES."""
    return f"INSERT INTO a SELECT n, repeat(md5(n::text), {ROW_BYTES // 32}) FROM generate_series(1, {rows}) n"


def _alone(rows: int, streamed: bool) -> Taken:
    with tempfile.TemporaryDirectory(prefix="headrace-large-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        settings = {"fsync": "off", "synchronous_commit": "off", "logical_decoding_work_mem": "1MB"}
        server = PostgresServer(folder / "server", settings=settings).start()
        try:
            spill = folder / "streamed" if streamed else None
            source = PostgresSource("shop", server.dsn, "large", "large", (TableChoice("public.a"),), streamed=spill)
            server.psql("CREATE TABLE a (n int PRIMARY KEY, v text)")
            prepare(source)
            server.psql(fill(rows))
            return in_a_process(source, folder / "spool.db", rows)
        finally:
            server.stop("immediate")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    for name in ("dsn", "slot", "publication", "spool"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--streamed", nargs="?", const="yes", type=Path, help="streamed before the commit; where to")
    options = parser.parse_args()
    if options.dsn is None:
        taken = _alone(options.rows, options.streamed is not None)
    else:
        tables = (TableChoice("public.a"),)
        source = PostgresSource(
            "shop", options.dsn, options.slot, options.publication, tables, streamed=options.streamed
        )
        taken = take(source, Path(options.spool), options.rows)
    json.dump(asdict(taken), sys.stdout)
    sys.stdout.write(os.linesep)


if __name__ == "__main__":
    main()
