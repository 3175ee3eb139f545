"""The saved queries of a source, from the files that Terraform makes them of: terraform/queries/*.sql."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parent.parent / "terraform" / "queries"


@dataclass(frozen=True)
class NamedQuery:
    """A query as it stands in the workgroup."""

    name: str
    description: str
    database: str
    sql: str


def of_source(source: str) -> Iterator[NamedQuery]:
    """The source's queries, by name."""
    for path in sorted(FOLDER.glob("*.sql")):
        sql = path.read_text().replace("${source}", source)
        title = path.stem.replace("_", " ")
        yield NamedQuery(f"{source}: {title}", sql.splitlines()[0].removeprefix("-- "), source, sql)
