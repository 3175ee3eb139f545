"""SIGHUP: the configuration is read again, validated whole, and holds from the next transaction on."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from producer.errors import ConfigurationRefused
from producer.settings import check_reloadable, parse

DOCUMENT = {
    "source": {"name": "shop", "dsn": "host=db"},
    "spool": {"path": "/spool"},
    "tables": [{"name": "public.a"}],
}


def settings(**sections: object):
    return parse({**DOCUMENT, **sections}, "agent.toml")


def test_tables_and_block_sizes_may_change_while_it_runs() -> None:
    anew = settings(spool={"path": "/spool", "linger_ms": 7, "block_bytes": 5000}, tables=[{"name": "public.b"}])
    check_reloadable(settings(), anew)


def test_what_holds_from_a_start_only_is_named() -> None:
    anew = settings(spool={"path": "/other"}, aws={"stream": "another"})
    with pytest.raises(ConfigurationRefused) as refused:
        check_reloadable(settings(), anew)
    assert [problem.split(" differs")[0] for problem in refused.value.problems] == ["section [spool]", "section [aws]"]


@pytest.mark.slow
def test_a_reload_takes_tables_and_lanes_in_without_losing_a_change(rig) -> None:
    """While changes flow; a configuration that is refused leaves the one before in force."""
    rig.sql("CREATE TABLE a (id int PRIMARY KEY, ssn text)")
    rig.sql("CREATE TABLE b (id int PRIMARY KEY)")
    rig.sql("INSERT INTO b VALUES (1)")

    def configure(tables: str) -> None:
        written = config.read_text().partition("[[tables]]")[0]
        config.write_text(written + tables)
        agent.send_signal(signal.SIGHUP)

    def logged(event: str) -> None:
        rig.until(lambda _: event in rig.log)

    rig.tables = ("public.a",)
    agent = rig.start()
    config: Path = rig.folder / "agent.toml"
    rig.until(lambda seen: "a" in seen.snapshotted)
    rig.sql("INSERT INTO a SELECT n, 'plain' FROM generate_series(1, 500) n")
    configure('[[tables]]\nname = "public.a"\nlanez = 3\n')
    rig.until(lambda seen: len(seen.rows.get("a", [])) == 500)
    logged("the one before stays")
    configure('[[tables]]\nname = "public.a"\nlanes = 3\nexclude_columns = ["ssn"]\n[[tables]]\nname = "public.b"\n')
    logged("configuration reloaded")
    rig.sql("INSERT INTO a SELECT n, 'hidden' FROM generate_series(501, 1000) n")
    rig.sql("INSERT INTO b VALUES (2)")
    arrived = rig.until(
        lambda seen: len(seen.rows.get("a", [])) == 1000 and "b" in seen.rows and "b" in seen.snapshotted
    )
    assert sorted(row["id"] for row in arrived.rows["a"]) == list(range(1, 1001))
    assert {row.get("ssn", "left out") for row in arrived.rows["a"] if row["id"] > 500} == {"left out"}
    assert {lane for table, lane in arrived.lanes if table == "a" and lane.isdigit()} == {"0", "1", "2"}
    assert agent.poll() is None
