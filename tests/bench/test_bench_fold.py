"""The fold's benchmark in its short form: what it measures is what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import fold, fold_ours, harness


def test_the_parts_without_a_peer_write_their_figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Growth with its fitted line, and planning for many tables."""
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr("sys.argv", ["fold", "--rows", "6000", "--runs", "1", "--only", "growth", "--only", "tables"])
    fold.main()
    rows = json.loads((tmp_path / "fold.json").read_text())["rows"]
    assert {row["part"] for row in rows} == {"growth", "tables"}
    fitted = [row for row in rows if row["measure"].startswith("fitted")]
    assert len(fitted) == 3 and all(row["ours"] is not None for row in fitted)


@pytest.mark.parametrize("which", fold_ours.WHERE)
def test_the_view_answers_the_same_in_every_state(which: str, tmp_path: Path) -> None:
    """Before a fold, after a minor and after a major one, and as the window over all changes says."""
    lake = fold_ours.Lake(tmp_path)
    lake.make(4_000, 400, 0)
    answers = {fold_ours.answer(lake, form, which) for form in ("view", "naive")}
    for kind in ("minor", "major"):
        lake.fold(kind)
        answers.add(fold_ours.answer(lake, "view", which))
    assert len(answers) == 1
    assert answers == {fold_ours.answer(lake, "plain", which)}


def test_the_fit_finds_a_line_and_its_error() -> None:
    """Seconds that are a line are fitted without an error."""
    points = [(base, tail, 0.1 + base * 2e-6 + tail * 5e-6) for base in (1000, 5000) for tail in (10, 400)]
    found, error = fold._fitted(points)
    assert found == pytest.approx([0.1, 2e-6, 5e-6])
    assert error < 1e-9
