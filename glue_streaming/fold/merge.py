"""What a fold computes: DuckDB SQL, generated from a table's shape. Pure text; `scratch` runs it.

Relations that the SQL reads, each of the files that one part of a fold reads and within its key range: `log`, `delta`,
`base`, `staged`; and `completed`. Relations that it makes, in order: taken, changes, fresh, suspects, kin, resolved,
candidates, latest.

A value that an update left out (`_unchanged`) is the newest older value of the row's *lineage*: the versions of one
key between two deletes, carried on across a key change (a delete and, right behind it, an insert with `_old_key`).
Only the rows of such keys (the suspects and their kin) go through the windows that this takes. A key change may lead
from one key range into another, so the inserts of key changes are completed first, for the fold as a whole
(`completed`); what follows looks at one key at a time.

Keys are compared as the source compares them, save that a null equals a null and lies behind everything.
Columns that the SQL makes for itself begin with `$`, as no table's column does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from glue_streaming.fold.ranges import Cut, KeyRange
from glue_streaming.fold.shape import Shape
from schemas.position import Line, Position

BY_POSITION = "_era, _lsn, _idx"
NEWEST_FIRST = "_era DESC, _lsn DESC, _idx DESC"


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def names(columns: Iterable[str], prefix: str = "") -> str:
    return ", ".join(f"{prefix}{quoted(column)}" for column in columns)


def every(shape: Shape, prefix: str = "") -> str:
    return names((column.name for column in shape.every), prefix)


def same_key(shape: Shape, left: str, right: str) -> str:
    return " AND ".join(f"{left}.{quoted(key)} IS NOT DISTINCT FROM {right}.{quoted(key)}" for key in shape.key)


def semi(shape: Shape, keys: str) -> str:
    return f"SEMI JOIN {keys} ON {same_key(shape, 'rows', keys)}"


def anti(shape: Shape, keys: str) -> str:
    return f"ANTI JOIN {keys} ON {same_key(shape, 'rows', keys)}"


def literal(value: Any, kind: str) -> str:
    """A bound of an Iceberg column as a constant of its DuckDB type."""
    if kind == "VARCHAR":
        return text(value)
    if kind == "BLOB":
        return f"unhex('{value.hex()}')"
    if kind == "DATE":
        return f"(DATE '1970-01-01' + {value})"
    if kind == "TIMESTAMP":
        return f"make_timestamp({value})"
    return f"CAST({text(str(value))} AS {kind})"


def within(shape: Shape, keys: KeyRange) -> str:
    """Rows whose key lies in a range. Beside each cut stands what row groups can be skipped by."""
    conditions = []
    if keys.low is not None:
        first, bound = quoted(shape.key[0]), _constants(shape, keys.low)[0]
        conditions.append(f"({first} >= {bound} OR {first} IS NULL) AND NOT {_before(shape, keys.low)}")
    if keys.high is not None:
        first, bound = quoted(shape.key[0]), _constants(shape, keys.high)[0]
        conditions.append(f"{first} <= {bound} AND {_before(shape, keys.high)}")
    return " AND ".join(conditions) or "TRUE"


def _constants(shape: Shape, cut: Cut) -> list[str]:
    types = {column.name: column.duckdb for column in shape.columns}
    return [literal(value, types[name]) for name, value in zip(shape.key, cut.prefix, strict=False)]


def _before(shape: Shape, cut: Cut) -> str:
    """Whether a key lies before the cut; never null."""
    constants = _constants(shape, cut)
    either = []
    for depth, constant in enumerate(constants):
        last = depth == len(constants) - 1
        equal = [f"{quoted(shape.key[n])} = {constants[n]}" for n in range(depth)]
        either.append(
            " AND ".join([*equal, f"{quoted(shape.key[depth])} {'<=' if last and cut.after else '<'} {constant}"])
        )
    return f"coalesce({' OR '.join(f'({one})' for one in either)}, FALSE)"


def covered(line: Line) -> str:
    """Rows at or below a line."""
    return f"(_era < {line.era} OR (_era = {line.era} AND _lsn <= {line.lsn}))"


def above(position: Position | None) -> str:
    """Rows behind a position; all rows where there is none."""
    if position is None:
        return "TRUE"
    era, lsn, idx = position
    return f"(_era > {era} OR (_era = {era} AND (_lsn > {lsn} OR (_lsn = {lsn} AND _idx > {idx}))))"


def taken(shape: Shape, line: Line, *, completed: bool) -> str:
    """The log's rows at or below the line; completed: the inserts of key changes as they were completed."""
    rows = f"SELECT {every(shape)} FROM log AS rows"
    if not completed:
        return f"{rows} WHERE {covered(line)}"
    return f"""
        {rows} ANTI JOIN completed AS done
        ON rows._era = done._era AND rows._lsn = done._lsn AND rows._idx = done._idx
        WHERE {covered(line)} UNION ALL SELECT {every(shape)} FROM completed"""


def remainder(line: Line) -> str:
    """What is left of log files that straddle the line; it stays log."""
    return f"SELECT * FROM log WHERE NOT {covered(line)} ORDER BY {BY_POSITION}"


def last_truncate() -> str:
    return f"SELECT {BY_POSITION} FROM taken WHERE _op = 't' ORDER BY {NEWEST_FIRST} LIMIT 1"


def changes(shape: Shape, truncate: Position | None) -> str:
    """The changes that count: the old delta, which a truncate hides, and what was taken behind the truncate."""
    rows = fresh(shape, truncate)
    return rows if truncate else f"SELECT {every(shape)} FROM delta UNION ALL {rows}"


def fresh(shape: Shape, truncate: Position | None) -> str:
    """Of the changes those that were taken from the log."""
    return f"SELECT {every(shape)} FROM taken WHERE _op <> 't' AND {above(truncate)}"


def suspects(shape: Shape) -> str:
    """Keys of rows that left a value out."""
    return f"SELECT DISTINCT {names(shape.key)} FROM fresh WHERE len(_unchanged) > 0"


def moved_keys(shape: Shape, changes: str = "changes") -> str:
    """Keys of rows that came by a key change and left a value out, and the keys that they came from."""
    return f"""
        SELECT {names(shape.key)} FROM {changes} WHERE _old_key IS NOT NULL AND len(_unchanged) > 0
        UNION SELECT {names(shape.key, "d.")} FROM {changes} AS i JOIN {changes} AS d
        ON i._old_key IS NOT NULL AND d._op = 'd' AND i._era = d._era AND i._lsn = d._lsn AND i._idx = d._idx + 1"""


def kin(shape: Shape, *, with_base: bool) -> str:
    """All versions at hand of the suspects; each is numbered by its segment: the versions of a key between deletes."""
    rows = f"""SELECT {every(shape)}, FALSE AS "$older" FROM changes AS rows {semi(shape, "suspects")}"""
    if with_base:
        rows = f"""
            {rows} UNION ALL
            SELECT {every(shape)}, TRUE AS "$older" FROM base AS rows {semi(shape, "suspects")}"""
    return f"""
        SELECT *, dense_rank() OVER (ORDER BY {names(shape.key)}, "$deletes") AS "$segment" FROM (
            SELECT *, count(*) FILTER (WHERE _op = 'd') OVER (
                PARTITION BY {names(shape.key)} ORDER BY {BY_POSITION} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ) AS "$deletes" FROM ({rows})
        )"""


def resolved(shape: Shape, *, across_keys: bool) -> str:
    """kin, with the values that a row left out filled in as far as its lineage knows them.

    across_keys: a lineage is carried on across key changes; otherwise it is one key's, whose key changes are complete.
    `_unchanged` then names what stays unknown. `own` is true where an older value could still be in base under the
    row's own key: no delete is before it, and it did not come by a key change.
    """
    torn = shape.torn
    carriers = ",\n            ".join(
        f"last_value(CASE WHEN _op <> 'd' AND NOT coalesce(list_contains(_unchanged, {text(c.name)}), FALSE) "
        f"THEN {{'value': {quoted(c.name)}, 'raw': _raw[{text(c.name)}]}} END IGNORE NULLS) "
        f"OVER versions AS {_carrier(n)}"
        for n, c in enumerate(torn)
    )
    known = ", ".join(f"CASE WHEN {_carrier(n)} IS NOT NULL THEN {text(c.name)} END" for n, c in enumerate(torn))
    raws = ", ".join(
        f"CASE WHEN list_contains(_unchanged, {text(c.name)}) AND {_carrier(n)}.raw IS NOT NULL "
        f"THEN {{'key': {text(c.name)}, 'value': {_carrier(n)}.raw}} END"
        for n, c in enumerate(torn)
    )
    filled = {
        c.name: f"CASE WHEN list_contains(_unchanged, {text(c.name)}) "
        f"THEN {_carrier(n)}.value ELSE {quoted(c.name)} END"
        for n, c in enumerate(torn)
    } | {
        "_unchanged": f"list_filter(_unchanged, lambda name: NOT list_contains([{known}], name))",
        "_raw": f"map_concat(_raw, map_from_entries(list_filter([{raws}], lambda entry: entry IS NOT NULL)))",
    }
    # A row that left nothing out keeps what it has, its null map too.
    columns = ", ".join(
        f"CASE WHEN len(_unchanged) > 0 THEN {filled[c.name]} ELSE {quoted(c.name)} END AS {quoted(c.name)}"
        if c.name in filled
        else quoted(c.name)
        for c in shape.every
    )
    lineages = _LINEAGES if across_keys else 'WITH lineages AS (SELECT *, "$segment" AS "$lineage" FROM kin)'
    return f"""
        {lineages}, carried AS (
            SELECT *, {carriers}, bool_or(_old_key IS NOT NULL) OVER versions AS "$moved" FROM lineages
            WINDOW versions AS (
                PARTITION BY "$lineage" ORDER BY {BY_POSITION} ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
            )
        )
        SELECT {columns}, "$older", "$deletes" = 0 AND NOT "$moved" AS "$own" FROM carried"""


_LINEAGES: Final = """
        WITH RECURSIVE links AS (
            SELECT DISTINCT i."$segment" AS child, d."$segment" AS parent FROM kin AS i JOIN kin AS d
            ON i._old_key IS NOT NULL AND d._op = 'd' AND i._era = d._era AND i._lsn = d._lsn AND i._idx = d._idx + 1
        ), climb AS (
            SELECT child, parent FROM links
            UNION
            SELECT climb.child, links.parent FROM climb JOIN links ON climb.parent = links.child
        ), roots AS (
            SELECT child, parent AS root FROM climb WHERE parent NOT IN (SELECT child FROM links)
        ), lineages AS (
            SELECT kin.*, coalesce(roots.root, kin."$segment") AS "$lineage"
            FROM kin LEFT JOIN roots ON kin."$segment" = roots.child
        )"""


def completed(shape: Shape) -> str:
    """The inserts of key changes that were taken, with what their old keys' rows know."""
    return f"SELECT {every(shape)} FROM resolved WHERE _old_key IS NOT NULL AND _tier = 'log'"


def candidates(shape: Shape, *, torn: bool) -> str:
    """`fresh`, with the values that its rows left out filled in; `own` as in `resolved`."""
    rows = f'SELECT {every(shape)}, FALSE AS "$own" FROM fresh AS rows'
    if not torn:
        return rows
    return f"""
        {rows} {anti(shape, "suspects")}
        UNION ALL SELECT {every(shape)}, "$own" FROM resolved WHERE NOT "$older" """


def latest(shape: Shape) -> str:
    """The newest change of every key."""
    newest = f"row_number() OVER (PARTITION BY {names(shape.key)} ORDER BY {NEWEST_FIRST}) = 1"
    return f"SELECT * FROM candidates QUALIFY {newest}"


def history(shape: Shape) -> str:
    """The rows taken, as the source sent them, key changes completed: their old values are found nowhere else."""
    return f"SELECT {as_tier(shape, 'history')} FROM taken ORDER BY {BY_POSITION}"


def incoming(shape: Shape, tier: str) -> str:
    """All changes as a sorted tier takes them, by key; of one key the newest comes last, and is the one that counts."""
    return f"SELECT {as_tier(shape, tier, _unknown(tier))} FROM candidates ORDER BY {names(shape.key)}, {BY_POSITION}"


def merged(shape: Shape, tier: str) -> str:
    """A sorted tier's files read with the newest changes merged in, sorted anew: where streams cannot be merged."""
    kept = "TRUE" if tier == "delta" else "_op <> 'd'"
    return f"""
        SELECT {every(shape)} FROM (
            SELECT {every(shape)} FROM {tier} AS rows {anti(shape, "latest")}
            UNION ALL SELECT {as_tier(shape, tier, _unknown(tier))} FROM latest WHERE {kept}
        ) ORDER BY {names(shape.key)}"""


def _unknown(tier: str) -> str:
    """What `_unchanged` becomes: in delta what base alone may know; in base there is nobody left to know it."""
    return 'CASE WHEN "$own" AND len(_unchanged) > 0 THEN _unchanged END' if tier == "delta" else "NULL"


def live(shape: Shape) -> str:
    """Base out of `latest` alone."""
    return f"SELECT {as_tier(shape, 'base', 'NULL')} FROM latest WHERE _op <> 'd' ORDER BY {names(shape.key)}"


def carried(shape: Shape) -> str:
    """What of old history goes on: the newest version of each key that is live, with what it left out filled in."""
    unknown = "CASE WHEN len(_unchanged) > 0 THEN _unchanged END"
    return f"SELECT {as_tier(shape, 'history', unknown)} FROM latest WHERE _op <> 'd' ORDER BY {BY_POSITION}"


def younger(line: Line) -> str:
    """What of the history is not old."""
    return f"SELECT * FROM staged WHERE NOT {covered(line)} ORDER BY {BY_POSITION}"


def unknown_values(shape: Shape) -> str:
    """Live rows that would be left with a value nobody knows."""
    return f"SELECT {names(shape.key)}, _unchanged FROM latest WHERE _op <> 'd' AND len(_unchanged) > 0 LIMIT 5"


def _carrier(number: int) -> str:
    return f'"$carrier_{number}"'


def as_tier(shape: Shape, tier: str, unchanged: str | None = None) -> str:
    """The table's columns in order, with the tier set. `unchanged` given: the row is a state, its old key done with."""
    expressions = {"_tier": f"{text(tier)} AS _tier"}
    if unchanged is not None:
        expressions |= {
            "_unchanged": f"CAST({unchanged} AS VARCHAR[]) AS _unchanged",
            "_old_key": "CAST(NULL AS VARCHAR) AS _old_key",
        }
    return ", ".join(expressions.get(c.name, quoted(c.name)) for c in shape.every)


def staged_rows(era: int, points: Iterable[int]) -> str:
    """Rows of the attempts that count: a staged row's lsn is its attempt's consistent point - 1."""
    return f"SELECT * FROM staged WHERE _era = {era} AND _lsn IN ({', '.join(str(point - 1) for point in points)})"


def staged_remainder(era: int, highest: int) -> str:
    """Staged rows of snapshots that come after the one with this highest consistent point."""
    return f"SELECT * FROM staged WHERE NOT {covered(Line(era, highest - 1))} ORDER BY {BY_POSITION}"


def snapshot_changes(shape: Shape, era: int, lowest: int, truncate: Position | None) -> str:
    """A snapshot's rows and the changes that may be laid over them.

    A row read at C carries the lsn C - 1, so the order of positions lays exactly the changes at or above its group's C
    over it. A key that no group read had no row at its group's C: of its changes the newest decides, if it lies at or
    above the lowest C (below it, what removed the row may be missing in a hole that this snapshot repairs).
    """
    over = f"_op <> 't' AND NOT {covered(Line(era, lowest - 1))} AND {above(truncate)}"
    return f"""
        SELECT {every(shape)} FROM staged_rows WHERE {above(truncate)}
        UNION ALL SELECT {every(shape)} FROM taken WHERE {over}
        UNION ALL SELECT {every(shape)} FROM delta WHERE {over}"""


def vanished(shape: Shape, truncate: Position | None) -> str:
    """The newest version of each key that was live before the activation and is gone behind it."""
    old = f"SELECT {every(shape)} FROM taken WHERE _op <> 't' AND {above(truncate)}"
    if truncate is None:
        old = f"{old} UNION ALL SELECT {every(shape)} FROM delta UNION ALL SELECT {every(shape)} FROM base"
    keys = names(shape.key)
    return f"""
        SELECT * FROM (
            SELECT * FROM ({old}) QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {NEWEST_FIRST}) = 1
        ) AS rows ANTI JOIN (SELECT {keys} FROM latest WHERE _op <> 'd') AS there
        ON {same_key(shape, "rows", "there")} WHERE _op <> 'd'"""


@dataclass(frozen=True)
class Closing:
    """The rows that close keys which a snapshot found gone: at the ordinals first, first + step, ..., so that no two
    parts of an activation use one twice. at: when the snapshot was read, in microseconds; None: unknown, or of a table
    without a key that had no rows before either."""

    first: int
    step: int
    at: int | None = None


def snapshot_history(shape: Shape, era: int, lowest: int, truncate: Position | None, closing: Closing) -> str:
    """What an activation adds to history: the changes taken, the rows read, and a closing row for every vanished key.

    Closing rows stand just below the lowest consistent point, behind every row read there. Without a key the rows read
    end what was there before; where none was read, a truncate does.
    """
    rows = f"SELECT {every(shape)} FROM taken UNION ALL SELECT {every(shape)} FROM staged_rows"
    if shape.key:
        kept = {c: quoted(c) for c in shape.key}
        values = kept | {
            "_op": "'d'",
            "_era": str(era),
            "_lsn": str(lowest - 1),
            "_idx": f"CAST({closing.first} + {closing.step} * (row_number() OVER () - 1) AS INTEGER)",
            "_committed_at": "_committed_at" if closing.at is None else f"make_timestamp({closing.at})",
            "_batch": "_batch",
        }
        columns = ", ".join(
            f"{values.get(c.name, f'CAST(NULL AS {c.duckdb})')} AS {quoted(c.name)}" for c in shape.every
        )
        rows = f"{rows} UNION ALL SELECT {columns} FROM ({vanished(shape, truncate)})"
    elif closing.first == 0 and closing.at is not None:
        values = {"_op": "'t'", "_era": str(era), "_lsn": str(lowest - 1), "_idx": "0", "_batch": "0"}
        values["_committed_at"] = f"make_timestamp({closing.at})"
        columns = ", ".join(f"CAST({values.get(c.name, 'NULL')} AS {c.duckdb})" for c in shape.every)
        rows = f"{rows} UNION ALL SELECT {columns}"
    return f"SELECT {as_tier(shape, 'history')} FROM ({rows}) ORDER BY {BY_POSITION}"
