"""Every alarm and every message has its chapter in docs/operations.md, and no chapter is about nothing."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
ALARMS = (ROOT / "terraform" / "alarms.tf").read_text()
EVENTS = (ROOT / "terraform" / "operations.tf").read_text()
HANDBOOK = (ROOT / "docs" / "operations.md").read_text()


def watched() -> set[str]:
    """Names of the rows in alarms.tf and of the rules in operations.tf, and the alarms that stand by themselves."""
    rows = set(re.findall(r"^ +([a-z-]+)\s*= \{\n +(?:namespace|metric) ", ALARMS, re.MULTILINE))
    alone = set(re.findall(r'"\$\{var\.name\}-(registry-[a-z-]+)"', ALARMS))
    rules = set(re.findall(r"^    ([a-z-]+) = \{\n +description", EVENTS, re.MULTILINE))
    return rows | alone | rules


def test_every_alarm_has_its_chapter() -> None:
    assert len(watched()) >= 22
    assert watched() == set(re.findall(r"^### ([a-z-]+)$", HANDBOOK, re.MULTILINE))


def test_descriptions_name_the_handbook() -> None:
    assert re.search(r'handbook\s*= "docs/operations\.md"', ALARMS)
    assert EVENTS.count("What to do: docs/operations.md, ") == len(
        re.findall(r"^    ([a-z-]+) = \{\n +description", EVENTS, re.MULTILINE)
    )
