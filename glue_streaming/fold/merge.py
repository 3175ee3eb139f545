"""What a fold computes: DuckDB SQL, generated from a table's shape. Pure text; `scratch` runs it.

Relations that the SQL reads: `log` (rows of the log files taken up), `delta`, `base` (of the base files read),
`staged` (of the staged files read). Relations that it makes, in order: taken, changes, suspects, kin, resolved, latest.

A value that an update left out (`_unchanged`) is the newest older value of the row's *lineage*: the versions of one
key between two deletes, carried on across a key change (a delete and, right behind it, an insert with `_old_key`).
Only the rows of such keys (the suspects and their kin) go through the windows that this takes.
"""

from __future__ import annotations

from collections.abc import Iterable

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
    return " AND ".join(f"{left}.{quoted(key)} = {right}.{quoted(key)}" for key in shape.key)


def covered(line: Line) -> str:
    """Rows at or below a line."""
    return f"(_era < {line.era} OR (_era = {line.era} AND _lsn <= {line.lsn}))"


def above(position: Position | None) -> str:
    """Rows behind a position; all rows where there is none."""
    if position is None:
        return "TRUE"
    era, lsn, idx = position
    return f"(_era > {era} OR (_era = {era} AND (_lsn > {lsn} OR (_lsn = {lsn} AND _idx > {idx}))))"


def taken(line: Line) -> str:
    return f"SELECT * FROM log WHERE {covered(line)}"


def remainder(line: Line) -> str:
    """What is left of log files that straddle the line; it stays log."""
    return f"SELECT * FROM log WHERE NOT {covered(line)} ORDER BY {BY_POSITION}"


def last_truncate() -> str:
    return f"SELECT {BY_POSITION} FROM taken WHERE _op = 't' ORDER BY {NEWEST_FIRST} LIMIT 1"


def changes(shape: Shape, truncate: Position | None) -> str:
    """The changes that count: the old delta, which a truncate hides, and what was taken behind the truncate."""
    rows = f"SELECT {every(shape)} FROM taken WHERE _op <> 't' AND {above(truncate)}"
    return rows if truncate else f"SELECT {every(shape)} FROM delta UNION ALL {rows}"


def suspects(shape: Shape) -> str:
    """Keys of rows that left a value out, and the old keys that such a row may have come from."""
    keys = names(shape.key)
    old_keys = f"SELECT {names(shape.key, 'd.')} FROM {_key_changes}"
    return f"SELECT {keys} FROM changes WHERE len(_unchanged) > 0 UNION {old_keys}"


_key_changes = (
    "changes AS i JOIN changes AS d "
    "ON i._old_key IS NOT NULL AND d._op = 'd' AND i._era = d._era AND i._lsn = d._lsn AND i._idx = d._idx + 1"
)


def old_keys(shape: Shape) -> str:
    """Keys whose base rows a minor fold needs too: the old keys of key changes."""
    return f"SELECT DISTINCT {names(shape.key, 'd.')} FROM {_key_changes}"


def kin(shape: Shape, *, with_base: bool) -> str:
    """All versions at hand of the suspects; each is numbered by its segment: the versions of a key between deletes."""
    rows = f"SELECT {every(shape)}, FALSE AS older FROM changes SEMI JOIN suspects USING ({names(shape.key)})"
    if with_base:
        rows = f"""
            {rows} UNION ALL
            SELECT {every(shape)}, TRUE AS older FROM base SEMI JOIN suspects USING ({names(shape.key)})"""
    return f"""
        SELECT *, dense_rank() OVER (ORDER BY {names(shape.key)}, deletes) AS segment FROM (
            SELECT *, count(*) FILTER (WHERE _op = 'd') OVER (
                PARTITION BY {names(shape.key)} ORDER BY {BY_POSITION} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ) AS deletes FROM ({rows})
        )"""


def resolved(shape: Shape) -> str:
    """kin, with the values that a row left out filled in as far as its lineage knows them.

    `_unchanged` then names what stays unknown. `own` is true where an older value could still be in base under the
    row's own key: its lineage begins with this key, and no delete is before it.
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
    return f"""
        WITH RECURSIVE links AS (
            SELECT DISTINCT i.segment AS child, d.segment AS parent FROM kin AS i JOIN kin AS d
            ON i._old_key IS NOT NULL AND d._op = 'd' AND i._era = d._era AND i._lsn = d._lsn AND i._idx = d._idx + 1
        ), climb AS (
            SELECT child, parent FROM links
            UNION
            SELECT climb.child, links.parent FROM climb JOIN links ON climb.parent = links.child
        ), roots AS (
            SELECT child, parent AS root FROM climb WHERE parent NOT IN (SELECT child FROM links)
        ), lineages AS (
            SELECT kin.*, coalesce(roots.root, kin.segment) AS lineage
            FROM kin LEFT JOIN roots ON kin.segment = roots.child
        ), carried AS (
            SELECT *, {carriers} FROM lineages
            WINDOW versions AS (
                PARTITION BY lineage ORDER BY {BY_POSITION} ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
            )
        )
        SELECT {columns}, older, lineage = segment AND deletes = 0 AS own FROM carried"""


def latest(shape: Shape, *, torn: bool) -> str:
    """The newest change of every key; `own` as in `resolved`."""
    rows = f"SELECT {every(shape)}, FALSE AS own FROM changes"
    if torn:
        rows = f"""
            {rows} ANTI JOIN suspects USING ({names(shape.key)})
            UNION ALL SELECT {every(shape)}, own FROM resolved WHERE NOT older"""
    newest = f"row_number() OVER (PARTITION BY {names(shape.key)} ORDER BY {NEWEST_FIRST}) = 1"
    return f"SELECT * FROM ({rows}) QUALIFY {newest}"


def history(shape: Shape, *, torn: bool) -> str:
    """The rows taken, as the source sent them. A key change is completed: its old values are found nowhere else."""
    rows = f"SELECT {every(shape)} FROM taken"
    if torn:
        rows = f"""
            {rows} ANTI JOIN (SELECT * FROM resolved WHERE _old_key IS NOT NULL AND _tier = 'log') USING ({BY_POSITION})
            UNION ALL SELECT {every(shape)} FROM resolved WHERE _old_key IS NOT NULL AND _tier = 'log'"""
    return f"SELECT {_as_tier(shape, 'history')} FROM ({rows}) ORDER BY {BY_POSITION}"


def delta_run(shape: Shape) -> str:
    """One merged run: the newest change of every key, tombstones kept. What base alone knows stays in `_unchanged`."""
    unknown = "CASE WHEN own AND len(_unchanged) > 0 THEN _unchanged END"
    return f"SELECT {_as_tier(shape, 'delta', unknown)} FROM latest ORDER BY {names(shape.key)}"


def new_base(shape: Shape, *, truncated: bool) -> str:
    """The base files read, with the changes merged in. A truncate has emptied the old ones."""
    rows = f"SELECT {every(shape)} FROM latest WHERE _op <> 'd'"
    if not truncated:
        rows = f"""
            SELECT {every(shape)} FROM base ANTI JOIN latest USING ({names(shape.key)})
            UNION ALL {rows}"""
    return f"SELECT {_as_tier(shape, 'base', 'NULL')} FROM ({rows}) ORDER BY {names(shape.key)}"


def keyless_base(shape: Shape, truncate: Position | None, *, with_old: bool) -> str:
    """The rows that a keyless table gained; with the base files read, where these are to become one."""
    rows = f"SELECT {every(shape)} FROM taken WHERE _op IN ('c', 'r') AND {above(truncate)}"
    if with_old:
        rows = f"{rows} UNION ALL SELECT {every(shape)} FROM base"
    return f"SELECT {_as_tier(shape, 'base')} FROM ({rows}) ORDER BY {BY_POSITION}"


def snapshot_keyless_base(shape: Shape) -> str:
    return f"SELECT {_as_tier(shape, 'base')} FROM changes WHERE _op IN ('c', 'r') ORDER BY {BY_POSITION}"


def unknown_values(shape: Shape) -> str:
    """Live rows that would be left with a value nobody knows."""
    return f"SELECT {names(shape.key)}, _unchanged FROM latest WHERE _op <> 'd' AND len(_unchanged) > 0 LIMIT 5"


def _carrier(number: int) -> str:
    return f"carrier_{number}"


def _as_tier(shape: Shape, tier: str, unchanged: str | None = None) -> str:
    """The table's columns in order, with the tier set. `unchanged` given: the row is a state, its old key done with."""
    expressions = {"_tier": f"{text(tier)} AS _tier"}
    if unchanged is not None:
        expressions |= {"_unchanged": f"{unchanged} AS _unchanged", "_old_key": "NULL AS _old_key"}
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
        ) ANTI JOIN (SELECT {keys} FROM latest WHERE _op <> 'd') USING ({keys}) WHERE _op <> 'd'"""


def snapshot_history(shape: Shape, era: int, lowest: int, truncate: Position | None, *, torn: bool) -> str:
    """What an activation adds to history: the changes taken, the rows read, and a closing row for every vanished key.

    Closing rows stand just below the lowest consistent point, behind every row read there.
    """
    rows = f"SELECT {every(shape)} FROM ({history(shape, torn=torn)}) UNION ALL SELECT {every(shape)} FROM staged_rows"
    if shape.key:
        kept = {c: quoted(c) for c in shape.key}
        closing = kept | {
            "_op": "'d'",
            "_era": str(era),
            "_lsn": str(lowest - 1),
            "_idx": (
                f"CAST((SELECT count(*) FROM staged_rows) + row_number() OVER (ORDER BY {names(shape.key)}) AS INTEGER)"
            ),
            "_committed_at": "coalesce((SELECT max(_committed_at) FROM staged_rows), _committed_at)",
            "_batch": "_batch",
        }
        columns = ", ".join(
            f"{closing.get(c.name, f'CAST(NULL AS {c.duckdb})')} AS {quoted(c.name)}" for c in shape.every
        )
        rows = f"{rows} UNION ALL SELECT {columns} FROM ({vanished(shape, truncate)})"
    return f"SELECT {_as_tier(shape, 'history')} FROM ({rows}) ORDER BY {BY_POSITION}"
