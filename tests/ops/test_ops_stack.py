"""A stack is found again by its folder, and its agent's configuration is valid."""

from pathlib import Path

import pytest

from ops import agent_config, shop, stack
from ops.errors import StackNotRunning
from producer import settings


def test_stack_keeps_its_ports(tmp_path: Path) -> None:
    first = stack.create("one", root=tmp_path)
    assert stack.create("one", root=tmp_path).facts == first.facts
    assert stack.create("two", root=tmp_path).facts.aws_port != first.facts.aws_port


def test_stack_that_does_not_run_is_not_found(tmp_path: Path) -> None:
    stack.create("one", root=tmp_path)
    with pytest.raises(StackNotRunning, match="headrace up"):
        stack.find(None, root=tmp_path)


def test_removed_stack_leaves_no_folder(tmp_path: Path) -> None:
    stack.create("one", root=tmp_path)
    stack.remove("one", root=tmp_path)
    assert not (tmp_path / "one").exists()


def test_agent_accepts_its_configuration(tmp_path: Path) -> None:
    made = stack.create("one", root=tmp_path)
    agent_config.write(made)
    read = settings.load(made.agent_config)
    assert read.source.name == "shop"
    assert [table.name for table in read.tables] == [f"public.{table}" for table in shop.TABLES]
    assert [table.name for table in read.tables if table.append_only] == ["public.pgbench_history"]
