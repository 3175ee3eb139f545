"""`headrace query`: answers in three forms, and Athena's own words when there is none."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from localaws.process import LocalAws
from ops import query, stack
from ops.__main__ import main
from ops.athena import Answer, Athena, Column
from ops.aws import Aws
from ops.errors import QueryFailed

ANSWER = Answer((Column("n", "integer"), Column("t", "varchar")), (("1", 'a "b"'), ("2", None)), 10, 0.1)


def test_answer_comes_as_athena_prints_it(aws: Aws) -> None:
    answer = Athena(aws.client("athena"), "headrace", "shop").run("SELECT 1 AS n, CAST(NULL AS varchar) AS t, '' AS e")
    assert [column.name for column in answer.columns] == ["n", "t", "e"]
    assert answer.rows == (("1", None, ""),)


def test_many_rows_come_whole(aws: Aws) -> None:
    """More than one page of results."""
    sql = "SELECT n FROM UNNEST(sequence(1, 2500)) AS t(n) ORDER BY n"
    rows = Athena(aws.client("athena"), "headrace", "shop").run(sql).rows
    assert [row[0] for row in rows] == [str(number) for number in range(1, 2501)]


def test_mistake_shows_athenas_error(aws: Aws) -> None:
    with pytest.raises(QueryFailed, match=r"TABLE_NOT_FOUND: line 1:15: .*nowhere"):
        Athena(aws.client("athena"), "headrace", "shop").run("SELECT * FROM nowhere")


def test_unknown_workgroup_is_said(aws: Aws) -> None:
    with pytest.raises(QueryFailed, match="nothere"):
        Athena(aws.client("athena"), "nothere").run("SELECT 1")


def test_failed_query_ends_the_command_with_1(
    server: LocalAws, aws: Aws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    assert main(["query", "--aws", "--database", "shop", "SELECT nothing FROM nowhere"]) == 1
    assert "nowhere" in capsys.readouterr().err


def test_without_a_stack_the_command_says_how_to_start_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stack, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["query", "SELECT 1"]) == 3
    assert "headrace up" in capsys.readouterr().err


def test_json_keeps_null_apart_from_text() -> None:
    assert json.loads(query.as_json(ANSWER)) == [{"n": "1", "t": 'a "b"'}, {"n": "2", "t": None}]


def test_csv_has_a_header() -> None:
    assert query.as_csv(ANSWER) == 'n,t\n1,"a ""b"""\n2,'


def test_table_shows_markup_as_it_is() -> None:
    """A value that looks like rich's markup is a value."""
    out = io.StringIO()
    query.show(Answer((Column("t", "varchar"),), (("[red]x[/red]",),), 0, 0.0), Console(file=out))
    assert "[red]x[/red]" in out.getvalue()
