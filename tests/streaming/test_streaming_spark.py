"""The job as Glue runs it: a script, with its arguments, in a process of its own, on a real Spark."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
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
def test_the_job_drains_then_runs_until_it_is_told_to_stop(world: Any, tmp_path: Path) -> None:
    """Drain reads everything and ends with 0; continuous loads what comes, and SIGTERM ends it with 0."""
    orders = world.schema("orders")
    world.send(world.data(orders, 10, [{"id": 1}]), world.progress(15))
    drain = launch(world, tmp_path, "drain")
    output, _ = drain.communicate(timeout=240)
    assert drain.returncode == 0, (tmp_path / "stderr").read_text()[-2000:]
    assert ids(world) == [1]
    assert sum(report["rows"] for report in batches(output.splitlines())) == 1

    world.send(world.data(orders, 20, [{"id": 2}]), world.progress(25))
    job = launch(world, tmp_path, "continuous")
    assert job.stdout is not None
    next(report for report in batches(job.stdout) if report["rows"])
    job.send_signal(signal.SIGTERM)
    job.communicate(timeout=60)
    assert job.returncode == 0, (tmp_path / "stderr").read_text()[-2000:]
    assert ids(world) == [1, 2]
