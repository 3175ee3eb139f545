"""What the configuration says about a PostgreSQL source."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class TableChoice:
    """Tables to capture: `schema.table`, with * and ? as wildcards (an unqualified name is in `public`).

    append_only: rows are only ever inserted; the table needs no key, and updates and deletes are not captured.
    """

    name: str
    append_only: bool = False

    def matches(self, schema: str, table: str) -> bool:
        pattern = self.name if "." in self.name else f"public.{self.name}"
        return fnmatchcase(f"{schema}.{table}", pattern)


@dataclass(frozen=True)
class PostgresSource:
    """A database and what to capture of it. The password comes from the environment or a pgpass file."""

    name: str
    dsn: str
    slot: str
    publication: str
    tables: tuple[TableChoice, ...]

    @property
    def append_publication(self) -> str:
        """Publishes inserts and truncates only, so that an UPDATE never fails at the source because of us."""
        return f"{self.publication}_append"

    def choice(self, schema: str, table: str) -> TableChoice | None:
        """What the configuration says of a table; the first that matches counts."""
        return next((choice for choice in self.tables if choice.matches(schema, table)), None)

    def is_append_only(self, schema: str, table: str) -> bool:
        choice = self.choice(schema, table)
        return choice is not None and choice.append_only
