"""Capture from PostgreSQL: logical replication, snapshots, and what must hold before either may start.

Imported by the agent: `PostgresSource`, `TableChoice` (source), `identify`, `prepare` (identity), `Capture` (capture),
`open_snapshot` (snapshot).
"""
