"""The agent's benchmark in its short form: the figures are of every change of the workload."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import agent, harness


def test_the_short_form_measures_every_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A drain waits for the last acceptance, the latency is that of each change, and what was met is said."""
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    words = "--changes 4000 --runs 1 --seconds 1 --without debezium --only drain --only latency --only snapshot"
    monkeypatch.setattr("sys.argv", ["bench.agent", *words.split()])
    agent.main()
    rows = {row["measure"]: row for row in json.loads((tmp_path / "agent.json").read_text())["rows"]}
    assert {row["part"] for row in rows.values()} == {"drain", "latency", "snapshot"}
    assert rows["drain"]["ours"] > 0
    assert rows["drain"]["peer"] > 0
    assert rows["drain"]["met"] == (rows["drain"]["ours"] >= rows["drain"]["peer"])
    assert rows["snapshot, two readers"]["ours"] > 0
    assert 0 < rows["commit to accepted at 500 changes/s, linger 10 ms, p50"]["ours"] < 60_000
