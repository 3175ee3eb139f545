"""Statements that are no queries: SHOW, DESCRIBE, EXPLAIN, and the refusal of those that would write."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlglot import exp

from . import athena_catalog as catalog
from .athena_errors import Place, QueryError

READS_ONLY = (
    "Athena on the laptop only reads: {} is not supported here; tables are written by the streaming and fold jobs"
)


@dataclass(frozen=True, slots=True)
class Listing:
    """The answer to a statement that looks at the catalog only: one column of text, or several."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


_NAME = r'((?:"[^"]+"|`[^`]+`|[\w$]+)(?:\s*\.\s*(?:"[^"]+"|`[^`]+`|[\w$]+))*)'
_LIKE = r"(?:\s+(?:LIKE\s+)?'([^']*)')?"


def listing(text: str, schema: str | None, reads: catalog.CatalogReads) -> Listing | None:
    """The answer, or None when the statement is not one of these. Each entry named is read once."""
    stripped = text.strip().rstrip(";").strip()
    for pattern, answer in _STATEMENTS:
        found = pattern.fullmatch(stripped)
        if found:
            return answer(found, schema, reads)
    return None


def explained(text: str) -> str | None:
    """The statement that EXPLAIN is asked about."""
    found = re.match(r"\s*EXPLAIN\s+(?=SELECT|WITH|\()", text, re.IGNORECASE)
    return text[found.end() :] if found else None


def require_query(tree: exp.Expr) -> None:
    """Raises QueryError for a statement that is not a query, naming what it is."""
    if isinstance(tree, exp.Query | exp.Values):
        if isinstance(tree, exp.Select) and not tree.expressions:
            raise QueryError("SYNTAX_ERROR", "mismatched input: a SELECT needs at least one column", Place(1, 1))
        return
    word = type(tree).__name__.upper()
    if isinstance(tree, exp.Insert | exp.Update | exp.Delete | exp.Merge | exp.Create | exp.Drop | exp.Alter):
        raise QueryError("NOT_SUPPORTED", READS_ONLY.format(word), Place(1, 1))
    if isinstance(tree, exp.Command):
        raise QueryError("NOT_SUPPORTED", READS_ONLY.format(tree.name.upper()), Place(1, 1))
    first = tree.sql(dialect="trino").split()[0]
    expected = "Expecting: 'DESCRIBE', 'EXPLAIN', 'SELECT', 'SHOW', 'VALUES', 'WITH'"
    raise QueryError("SYNTAX_ERROR", f"mismatched input '{first}'. {expected}", Place(1, 1))


def _parts(name: str) -> list[str]:
    return [part.strip().strip('"`').lower() for part in re.findall(r'"[^"]+"|`[^`]+`|[\w$]+', name)]


def _database(name: str | None, schema: str | None, reads: catalog.CatalogReads) -> str:
    database = _parts(name)[-1] if name else (schema or "default").lower()
    if database not in reads.databases():
        raise QueryError("SCHEMA_NOT_FOUND", f"Schema '{database}' does not exist")
    return database


def _matches(pattern: str | None, name: str) -> bool:
    """Athena's patterns: `*` stands for any text and `|` separates choices."""
    if not pattern:
        return True
    choices = (re.escape(choice).replace(r"\*", ".*").replace("%", ".*") for choice in pattern.split("|"))
    return any(re.fullmatch(choice, name) for choice in choices)


def _databases(found: re.Match[str], schema: str | None, reads: catalog.CatalogReads) -> Listing:
    return Listing(("database_name",), [(name,) for name in sorted(reads.databases()) if _matches(found[1], name)])


def _tables(found: re.Match[str], schema: str | None, reads: catalog.CatalogReads) -> Listing:
    names = (entry["Name"] for entry in reads.tables(_database(found[1], schema, reads)))
    return Listing(("tab_name",), [(name,) for name in sorted(names) if _matches(found[2], name)])


def _views(found: re.Match[str], schema: str | None, reads: catalog.CatalogReads) -> Listing:
    entries = reads.tables(_database(found[1], schema, reads))
    names = (entry["Name"] for entry in entries if catalog.is_view(entry))
    return Listing(("views",), [(name,) for name in sorted(names) if _matches(found[2], name)])


def _entry(name: str, schema: str | None, reads: catalog.CatalogReads) -> tuple[str, catalog.Entry]:
    parts = _parts(name)
    database = parts[-2] if len(parts) > 1 else (schema or "default").lower()
    return database, reads.table(database, parts[-1])


def _glue_columns(entry: catalog.Entry) -> list[tuple[str, str, str]]:
    columns = (entry.get("StorageDescriptor") or {}).get("Columns") or []
    return [(column["Name"], column.get("Type", ""), column.get("Comment") or "") for column in columns]


def _columns(found: re.Match[str], schema: str | None, reads: catalog.CatalogReads) -> Listing:
    name = f"{found[2]}.{found[1]}" if found[2] else found[1]
    _, entry = _entry(name, schema, reads)
    return Listing(("field",), [(column,) for column, _, _ in _glue_columns(entry)])


def _describe(found: re.Match[str], schema: str | None, reads: catalog.CatalogReads) -> Listing:
    _, entry = _entry(found[1], schema, reads)
    return Listing(("col_name", "data_type", "comment"), _glue_columns(entry))


def _create_view(found: re.Match[str], schema: str | None, reads: catalog.CatalogReads) -> Listing:
    database, entry = _entry(found[1], schema, reads)
    if not catalog.is_view(entry):
        raise QueryError("NOT_SUPPORTED", f"'{catalog.CATALOG}.{database}.{entry['Name']}' is a table, not a view")
    body = catalog.view(database, entry).sql
    return Listing(
        ("Create View",), [(f"CREATE VIEW {database}.{entry['Name']} AS",), *((s,) for s in body.split("\n"))]
    )


Answer = Callable[[re.Match[str], str | None, catalog.CatalogReads], Listing]

_STATEMENTS: tuple[tuple[re.Pattern[str], Answer], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), answer)
    for pattern, answer in (
        (rf"SHOW\s+(?:DATABASES|SCHEMAS)(?:\s+(?:IN|FROM)\s+\w+)?{_LIKE}", _databases),
        (rf"SHOW\s+TABLES(?:\s+(?:IN|FROM)\s+{_NAME})?{_LIKE}", _tables),
        (rf"SHOW\s+VIEWS(?:\s+(?:IN|FROM)\s+{_NAME})?{_LIKE}", _views),
        (rf"SHOW\s+COLUMNS\s+(?:IN|FROM)\s+{_NAME}(?:\s+(?:IN|FROM)\s+{_NAME})?", _columns),
        (rf"SHOW\s+CREATE\s+VIEW\s+{_NAME}", _create_view),
        (rf"(?:DESCRIBE|DESC)\s+(?:FORMATTED\s+|EXTENDED\s+)?{_NAME}", _describe),
    )
)
