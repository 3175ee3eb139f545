"""A stack is found again by its folder, and its agent's configuration is valid."""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from rich.console import Console

from ops import __main__, agent_config, shop, stack, up
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


def test_what_the_user_made_of_the_agents_configuration_stays(tmp_path: Path) -> None:
    """A second `up` finds the tables that were added since the first."""
    made = stack.create("one", root=tmp_path)
    agent_config.write(made)
    added = made.agent_config.read_text() + '[[tables]]\nname = "public.mine"\n'
    made.agent_config.write_text(added)
    agent_config.write(made)
    assert made.agent_config.read_text() == added


def test_the_agent_of_a_stack_finds_its_aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the stack, or by the path of its configuration."""
    monkeypatch.chdir(tmp_path)
    made = stack.create("one")
    agent_config.write(made)
    started: list[tuple[list[str], str | None]] = []
    monkeypatch.setattr("producer.__main__.main", lambda words: started.append((words, os.environ["AWS_ENDPOINT_URL"])))
    for name in made.aws.environment():
        monkeypatch.setenv(name, "somewhere else")
    __main__._agent(argparse.Namespace(config=Path(".headrace/one/agent.toml"), check=True, stack=None), Console())
    assert started == [(["--config", ".headrace/one/agent.toml", "--check"], made.facts.endpoint)]


def test_the_command_imports_what_its_verb_needs(tmp_path: Path) -> None:
    """Its help needs nothing of Spark, Arrow or AWS; every verb has its words."""
    heavy = "boto3", "duckdb", "psycopg", "pyarrow", "pyiceberg", "pyspark"
    code = f"import sys; from ops import __main__; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    for verb in __main__._VERBS:
        assert len(__main__._parser([verb])._subparsers._group_actions[0].choices[verb]._actions) > 1


def test_agent_accepts_its_configuration(tmp_path: Path) -> None:
    made = stack.create("one", root=tmp_path)
    agent_config.write(made)
    read = settings.load(made.agent_config)
    assert read.source.name == "shop"
    assert [table.name for table in read.tables] == [f"public.{table}" for table in shop.TABLES]
    assert [table.name for table in read.tables if table.append_only] == ["public.pgbench_history"]


@pytest.mark.parametrize(("runs", "said"), [(False, "starting the agent"), (True, "the agent runs already")])
def test_a_second_up_says_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: bool, said: str) -> None:
    for name in ("require_java", "provision", "shop.create", "agent_config.write", "_agent_answers"):
        monkeypatch.setattr(f"ops.up.{name}", lambda *_: True)
    asked: Any = Mock(facts=Mock(terraform=False), folder=tmp_path, postgres=Mock(pid=7 if runs else None))
    asked.aws_runs.return_value = asked.agent_runs.return_value = runs
    told: list[str] = []
    up.start(asked, told.append)
    assert told[-1] == said
    assert len([line for line in told if "runs already" in line]) == (3 if runs else 0)
