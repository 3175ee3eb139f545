"""The job as Glue runs it: a script, with its arguments, in a process of its own, on a real Spark."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from glue_streaming import stream_job
from glue_streaming.aws import Aws
from glue_streaming.lake_table import identifier

ROOT = Path(stream_job.__file__).parent.parent


def launch(world: Any, folder: Path, mode: str) -> "subprocess.Popen[str]":
    script = folder / "script.py"  # outside the packages, as Glue's copy of it is
    shutil.copy(Path(stream_job.__file__), script)
    arguments = world.arguments(mode=mode, checkpoint=str(folder / f"checkpoint-{mode}"), JOB_NAME="j", JOB_RUN_ID="r")
    with (folder / "stderr").open("w") as errors:
        return subprocess.Popen(
            [sys.executable, str(script), *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )


def batches(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The batches' log lines."""
    for line in lines:
        if line.startswith("{") and (told := json.loads(line))["event"] == "batch":
            yield told


def ids(world: Any) -> list[int]:
    return sorted(Aws().catalog.load_table(identifier(world.source, "orders")).scan().to_arrow()["id"].to_pylist())


@pytest.mark.slow
def test_the_job_runs_until_it_is_told_to_stop_and_drains(make_world: Callable[..., Any], tmp_path: Path) -> None:
    """Continuous loads what comes, and SIGTERM ends it with 0 once its batch is done. A batch that cannot be done (its
    AWS does not answer) is dropped within twenty seconds. The next run finds neither Spark's checkpoint nor a saved
    position. Drain reads every shard, one task each, and ends with 0: each row is there once."""
    world = make_world(shards=4)
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]), world.progress(15))
    job = launch(world, tmp_path, "continuous")
    assert job.stdout is not None
    next(report for report in batches(job.stdout) if report["rows"])
    job.send_signal(signal.SIGTERM)
    rest, _ = job.communicate(timeout=300)
    assert job.returncode == 0, (tmp_path / "stderr").read_text()[-2000:]
    assert "the batch is dropped" not in rest
    assert ids(world) == [1]

    shutil.rmtree(tmp_path / "checkpoint-continuous")
    world.lose_positions()
    world.send(world.data(orders, 20, [{"id": 2}]), world.progress(25))
    job = launch(world, tmp_path, "continuous")
    assert job.stdout is not None
    next(batches(job.stdout))
    world.send(world.data(orders, 30, [{"id": 3}]), world.progress(35))
    os.kill(world.server.process.pid, signal.SIGSTOP)
    try:
        job.send_signal(signal.SIGTERM)
        rest, _ = job.communicate(timeout=300)
    finally:
        os.kill(world.server.process.pid, signal.SIGCONT)
    assert job.returncode == 0
    (dropped,) = [json.loads(line) for line in rest.splitlines() if "the batch is dropped" in line]
    assert dropped["waited_seconds"] < 20

    world.lose_positions()
    world.send(*(world.data(orders, 40, [{"id": 4 + n}], lane=str(n)) for n in range(8)), world.progress(45))
    drain = launch(world, tmp_path, "drain")
    output, _ = drain.communicate(timeout=600)
    assert drain.returncode == 0, (tmp_path / "stderr").read_text()[-2000:]
    assert ids(world) == list(range(1, 12))
    assert next(batches(output.splitlines()))["event"] == "batch"
