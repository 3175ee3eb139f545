"""Random histories of the whole protocol, over the real decisions: chain, holes, state, lines, watermark, activation.

HEADRACE_HISTORIES sets how many of each scenario are played (default 60). A failure names its scenario and seed:
`World(SCENARIOS[scenario], seed).play()` plays it again.
"""

from __future__ import annotations

import os

import pytest

from tests.simulation.rules import RULES, Rule
from tests.simulation.world import SCENARIOS, Broken, World

HISTORIES = int(os.environ.get("HEADRACE_HISTORIES", "60"))


def first_failure(scenario: str, histories: int) -> tuple[int, Exception] | None:
    """The first seed whose history breaks a promise, and how."""
    for seed in range(histories):
        try:
            World(SCENARIOS[scenario], seed).play()
        except Exception as error:  # a decision that raises has failed as well
            return seed, error
    return None


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_simulation_every_history_keeps_the_promises(scenario: str) -> None:
    """Nothing lost, nothing twice; every cut query is the source at its watermark; every hole closes, all converges."""
    for seed in range(HISTORIES):
        try:
            World(SCENARIOS[scenario], seed).play()
        except Exception as error:
            pytest.fail(f"scenario {scenario}, seed {seed}: {type(error).__name__}: {error}")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name.replace(" ", "-"))
def test_simulation_each_rule_is_needed(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    """With any one rule switched off, a history soon breaks a promise: the checks above can fail."""
    rule.switch_off(monkeypatch)
    assert first_failure(rule.scenario, rule.histories) is not None


def test_simulation_same_seed_plays_the_same_history() -> None:
    """A failure can be played again."""
    first, second = (World(SCENARIOS["loss+both"], 7) for _ in range(2))
    first.play()
    second.play()
    assert (first.now, first.lake.tables) == (second.now, second.lake.tables)


def test_simulation_broken_names_what_broke() -> None:
    """An unfinished history says what it waited for."""
    world = World(SCENARIOS["clean"], 0)
    world.job.begin = lambda *_: {}  # type: ignore[method-assign]
    with pytest.raises(Broken, match="never activated"):
        world.play()
