"""The source's load, where snapshots are to stay out of its way."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from producer.postgres.connection import connect
from producer.postgres.source import PostgresSource


@dataclass(frozen=True)
class Load:
    """active_sessions: other sessions that work just now. replica_lag_seconds: of the replica furthest behind."""

    active_sessions: int
    replica_lag_seconds: float


def measure(source: PostgresSource) -> Load:
    """What the statistics say now. Raises SourceUnreachable."""
    with closing(connect(source.dsn)) as connection:
        row = connection.execute(
            "SELECT (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE state = 'active'"
            " AND backend_type IN ('client backend', 'parallel worker')"
            " AND application_name <> current_setting('application_name')),"
            " (SELECT coalesce(max(extract(epoch FROM replay_lag)), 0)::float8 FROM pg_catalog.pg_stat_replication"
            " WHERE application_name <> current_setting('application_name'))"
        ).fetchone()
    assert row is not None
    return Load(*row)


def busy(load: Load, max_active_sessions: int | None, max_replica_lag_seconds: int | None) -> str | None:
    """Why snapshots had better wait. Pure."""
    if max_active_sessions is not None and load.active_sessions > max_active_sessions:
        return f"{load.active_sessions} sessions work at the source, more than {max_active_sessions}"
    if max_replica_lag_seconds is not None and load.replica_lag_seconds > max_replica_lag_seconds:
        return f"a replica is {load.replica_lag_seconds:.0f} s behind, more than {max_replica_lag_seconds} s"
    return None
