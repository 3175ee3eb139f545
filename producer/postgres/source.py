"""What the configuration says about a PostgreSQL source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from producer.postgres.shaping import AS_IT_IS, Shaping
from producer.postgres.table_names import CurrentNames, TableNames


@dataclass(frozen=True)
class TableChoice:
    """Tables to capture: `schema.table`, with * and ? as wildcards (an unqualified name is in `public`).

    append_only: rows are only ever inserted; the table needs no key, and updates and deletes are not captured.
    exclude: tables that the name matches and that are not meant.
    """

    name: str
    append_only: bool = False
    exclude: tuple[str, ...] = ()
    shaping: Shaping = AS_IT_IS

    @property
    def is_pattern(self) -> bool:
        return any(sign in self.name for sign in "*?[")

    def matches(self, schema: str, table: str) -> bool:
        return _meets(schema, table, self.name) and not any(_meets(schema, table, name) for name in self.exclude)


@dataclass(frozen=True)
class PostgresSource:
    """A database and what to capture of it. The password comes from the environment or a pgpass file.

    hash_key: what columns are hashed with. streamed: a folder for transactions that the source streams before they
    commit; None: it keeps them until then. slot_is_ours: whoever reads the slot now is no other agent.
    """

    name: str
    dsn: str
    slot: str
    publication: str
    tables: tuple[TableChoice, ...]
    names: TableNames = field(default_factory=CurrentNames, compare=False)
    streamed: Path | None = None
    hash_key: bytes = field(default=b"", repr=False)
    slot_is_ours: bool = False

    @property
    def append_publication(self) -> str:
        """Publishes inserts and truncates only, so that an UPDATE never fails at the source because of us."""
        return f"{self.publication}_append"

    def choices(self, oid: int, schema: str, table: str) -> Iterator[TableChoice]:
        """What the configuration says of a table, by its name of now, then by the one it was first captured under."""
        for name in self.names.named(oid, schema, table).names(schema, table):
            yield from (choice for choice in self.tables if choice.matches(*name))

    def choice(self, oid: int, schema: str, table: str) -> TableChoice | None:
        """The first that matches counts."""
        return next(self.choices(oid, schema, table), None)

    def shaping(self, oid: int, schema: str, table: str) -> Shaping:
        choice = self.choice(oid, schema, table)
        return AS_IT_IS if choice is None else choice.shaping

    def is_append_only(self, oid: int, schema: str, table: str) -> bool:
        choice = self.choice(oid, schema, table)
        return choice is not None and choice.append_only


def _meets(schema: str, table: str, name: str) -> bool:
    pattern = name if "." in name else f"public.{name}"
    return fnmatchcase(f"{schema}.{table}", pattern)
