"""Random histories of the whole protocol, over the real decisions: chain, holes, state, lines, watermark, fence.

HEADRACE_HISTORIES sets how many of each scenario are played (default 25). A failure names its scenario and seed:
`World(SCENARIOS[scenario], seed).play()` plays it again.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.simulation.rules import RULES, Rule, document, failure, without
from tests.simulation.world import SCENARIOS, Broken, World

HISTORIES = int(os.environ.get("HEADRACE_HISTORIES", "25"))
RELIABILITY = Path(__file__).parents[2] / "docs" / "reliability.md"


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_simulation_every_history_keeps_the_promises(scenario: str) -> None:
    """Nothing lost, nothing twice; every cut query is the source at its watermark; every hole closes, all converges."""
    for seed in range(HISTORIES):
        error = failure(scenario, seed)
        assert error is None, f"scenario {scenario}, seed {seed}: {type(error).__name__}: {error}"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name.replace(" ", "-"))
def test_simulation_each_rule_is_needed(rule: Rule) -> None:
    """With any one rule switched off, its history breaks a promise; with it, the same history keeps them all."""
    assert failure(rule.scenario, rule.seed) is None
    with without(rule):
        error = failure(rule.scenario, rule.seed)
    assert error is not None
    assert rule.breaks in str(error)


def test_simulation_the_document_names_every_rule_and_seed() -> None:
    """docs/reliability.md holds the table as it is here."""
    assert document() in RELIABILITY.read_text()


def test_simulation_same_seed_plays_the_same_history() -> None:
    """A failure can be played again."""
    first, second = (World(SCENARIOS["eras+loss"], 7) for _ in range(2))
    first.play()
    second.play()
    assert (first.now, first.lake.tables) == (second.now, second.lake.tables)


def test_simulation_broken_names_what_broke() -> None:
    """An unfinished history says what it waited for."""
    world = World(SCENARIOS["clean"], 0)
    world._batch_step = lambda *_: True  # type: ignore[method-assign]
    with pytest.raises(Broken, match="never activated"):
        world.play()
