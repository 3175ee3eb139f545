"""What is refused before capture starts: all problems together, each with the statement that mends it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ops.postgres_server import PostgresServer
from producer.errors import SourceRefused, SourceUnreachable
from producer.postgres.capture import Capture
from producer.postgres.identity import check, follow, identify, prepare
from producer.postgres.shaping import Shaping
from producer.postgres.source import PostgresSource, TableChoice

Make = Callable[..., Any]


def refusal(source: PostgresSource) -> tuple[str, ...]:
    with pytest.raises(SourceRefused) as caught:
        check(source)
    return caught.value.problems


def test_a_ready_source_gives_its_tables(upstream: Any) -> None:
    """Tables that the configuration names, with the lake's names; nothing is made by looking."""
    upstream.run("CREATE SCHEMA s", "CREATE TABLE s.t (id int PRIMARY KEY)", "CREATE TABLE other (id int)")
    upstream.choose(TableChoice("s.*"))
    (table,) = check(upstream.source).tables
    assert (table.schema, table.name, table.append_only, table.lake_table) == ("s", "t", False, "s_t")
    assert identify(upstream.source).slot is None


def test_problems_come_together(upstream: Any) -> None:
    """Three mistakes, three problems, each with its remedy; nothing was made."""
    upstream.run(
        "CREATE TABLE keyless (x int)",
        "CREATE TABLE silent (id int PRIMARY KEY)",
        "ALTER TABLE silent REPLICA IDENTITY NOTHING",
    )
    upstream.choose(TableChoice("public.keyless"), TableChoice("public.silent"), TableChoice("public.gone"))
    gone, keyless, silent = refusal(upstream.source)
    assert "no table matches public.gone" in gone
    assert 'ALTER TABLE "public"."keyless" ADD PRIMARY KEY' in keyless
    assert "append_only = true" in keyless
    assert 'ALTER TABLE "public"."silent" REPLICA IDENTITY DEFAULT;' in silent
    with pytest.raises(SourceRefused):
        prepare(upstream.source)
    assert upstream.query("SELECT count(*) FROM pg_publication") == [(0,)]


def test_what_only_a_pattern_means_is_left_out_where_it_cannot_be_captured(upstream: Any) -> None:
    """At a start and a reload as while the agent runs: with the remedy, and the others go on. Named, it is refused; so
    is a pattern that captures nothing, and a published table whose key is to be masked."""
    upstream.run("CREATE TABLE a (id int PRIMARY KEY)", "CREATE TABLE keyless (x int)")
    upstream.choose(TableChoice("public.*"))
    for look in (check, prepare, follow, check):
        found = look(upstream.source)
        assert [table.name for table in found.tables] == ["a", "headrace_tests_mark"]
        (problem,) = found.left_out
        assert 'ALTER TABLE "public"."keyless" ADD PRIMARY KEY' in problem
    assert upstream.query("SELECT count(*) FROM pg_publication_tables WHERE tablename = 'keyless'") == [(0,)]
    for choices in ((TableChoice("public.keyless"), TableChoice("public.*")), (TableChoice("public.k*"),)):
        upstream.choose(*choices)
        assert "keyless" in refusal(upstream.source)[0]
    upstream.run("ALTER TABLE a REPLICA IDENTITY NOTHING")
    upstream.choose(TableChoice("public.*", shaping=Shaping(mask_columns={"id": 1})))
    assert any("column id of public.a is in its key" in problem for problem in refusal(upstream.source))


def test_the_statements_for_a_table_mend_it(upstream: Any) -> None:
    """Following the remedy makes the refusal go."""
    upstream.run("CREATE TABLE silent (id int PRIMARY KEY)", "ALTER TABLE silent REPLICA IDENTITY NOTHING")
    upstream.choose(TableChoice("public.silent"))
    (problem,) = refusal(upstream.source)
    upstream.run(problem.partition(": ")[2])
    assert len(check(upstream.source).tables) == 1


def test_missing_rights_are_named(upstream: Any) -> None:
    """A role without replication, ownership, SELECT and CREATE is told all four; following them makes it ready."""
    role = f"weak_{upstream.dbname}"
    upstream.run("CREATE TABLE t (id int PRIMARY KEY)", f"CREATE ROLE {role} LOGIN")
    upstream.choose(TableChoice("public.t"))
    weak = replace(upstream.source, dsn=upstream.server.dsn_of(upstream.dbname, user=role))
    replication, creation, reading, publishing = refusal(weak)
    assert replication.endswith(f'ALTER ROLE "{role}" REPLICATION;')
    assert creation.endswith(f'GRANT CREATE ON DATABASE "{upstream.dbname}" TO "{role}";')
    assert reading.endswith(f'GRANT SELECT ON "public"."t" TO "{role}";')
    assert 'ADD TABLE "public"."t";' in publishing
    for problem in (replication, creation, reading):
        upstream.run(problem.partition(": ")[2])
    upstream.run(*publishing.partition("as its owner, ")[2].removesuffix(";").split("; "))
    assert len(prepare(weak).tables) == 1
    with Capture(weak, era=1, after_lsn=0) as capture:
        capture.poll(0.1)
    upstream.run(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_foreign_publications_are_refused(prepared: Make, server_version: int) -> None:
    """Tables that we did not place there, row filters, other operations: each would lose or invent changes."""
    up = prepared("CREATE TABLE a (id int PRIMARY KEY)", "CREATE SCHEMA s", "CREATE TABLE s.t (id int PRIMARY KEY)")
    name = up.source.publication
    row_filter = " WHERE (id > 0)" if server_version >= 150_000 else ""
    up.run(
        f"ALTER PUBLICATION {name} ADD TABLE s.t",
        f"ALTER PUBLICATION {name} DROP TABLE a",
        f"ALTER PUBLICATION {name} ADD TABLE a{row_filter}",
        f"ALTER PUBLICATION {name} SET (publish = 'insert')",
    )
    operations, *filtered, foreign = refusal(up.source)
    assert "publishes something else" in operations
    assert ["row filter on public.a" in problem for problem in filtered] == [True] * bool(row_filter)
    assert 'DROP TABLE "s"."t";' in foreign
    for problem in (operations, *filtered, foreign):
        up.run(*problem.partition(": ")[2].removesuffix(";").split("; "))
    assert len(check(up.source).tables) == 2


def test_two_tables_for_one_lake_table_are_refused(upstream: Any) -> None:
    """Names that the lake cannot tell apart are a problem before they mix."""
    upstream.run("CREATE SCHEMA a", "CREATE TABLE a.b (id int PRIMARY KEY)", "CREATE TABLE a_b (id int PRIMARY KEY)")
    upstream.choose(TableChoice("a.b"), TableChoice("public.a_b"))
    (problem,) = refusal(upstream.source)
    assert "a.b and public.a_b would both be a_b" in problem


def test_a_slot_in_use_is_refused(prepared: Make) -> None:
    """Two readers of one slot cannot be: the second learns who holds it."""
    up = prepared("CREATE TABLE a (id int PRIMARY KEY)")
    with Capture(up.source, era=1, after_lsn=0) as capture:
        capture.poll(0.1)
        (problem,) = refusal(up.source)
    assert "in use by process" in problem
    assert "pg_terminate_backend" in problem


def test_a_server_without_logical_wal_is_refused() -> None:
    """wal_level is named with the statement and the restart that it needs."""
    with tempfile.TemporaryDirectory(prefix="headrace-pg-") as folder:
        Path(folder).chmod(0o755)
        server = PostgresServer(Path(folder) / "server", settings={"fsync": "off", "wal_level": "replica"}).start()
        try:
            server.psql("CREATE TABLE t (id int PRIMARY KEY)")
            source = PostgresSource("shop", server.dsn, "s", "p", (TableChoice("public.t"),))
            (problem,) = refusal(source)
        finally:
            server.stop("immediate")
    assert "ALTER SYSTEM SET wal_level = 'logical'; then restart" in problem


def test_an_absent_server_is_unreachable_not_refused() -> None:
    """A connection that fails may work later: another error than a source that has to be mended."""
    source = PostgresSource("shop", "host=127.0.0.1 port=1 dbname=x user=y", "s", "p", ())
    with pytest.raises(SourceUnreachable):
        identify(source)
