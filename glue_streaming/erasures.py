"""What is to be erased of a table, and of which rows that is: whose key has a keyed hash on record, up to a line. Pure.

A record holds no key: only its HMAC under the source's secret. A row is dropped where its hash is on record and its
position is at or below the record's line; the same key inserted again behind it lives. Where rows are counted (a
snapshot's, a raw block's) a row is blanked instead, and dropped once nobody counts it any more.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from schemas.change_record import RESERVED
from schemas.position import Line, Position

BLANK: Final = [("", "erased")]
"""`_raw` of a row that was blanked: no column is called that."""
POSITION: Final = ("_era", "_lsn", "_idx")
COUNTED: Final = "staged"


@dataclass(frozen=True)
class Erasure:
    """One record. digest: of the values of `columns`; old_digest: of the key as `_old_key` writes it."""

    columns: tuple[str, ...]
    digest: str
    old_digest: str
    through: Line


@dataclass(frozen=True)
class Erasures:
    """All records of one table."""

    secret: bytes = field(repr=False)
    records: tuple[Erasure, ...]

    @cached_property
    def highest(self) -> Line:
        return max(record.through for record in self.records)

    def reach(self, lowest: Line | None) -> bool:
        """Whether rows from that line on can be meant: behind the last record's line nothing is, and nothing costs."""
        return lowest is None or lowest <= self.highest

    def meant(self, rows: pa.Table, *, blanked: bool = True) -> list[bool]:
        """Of every row whether it is to go; blanked: those that were blanked before included."""
        lines = _lines(rows)
        found = [blanked and texts == BLANK for texts in _column(rows, "_raw")]
        for columns, through in self._by_columns.items():
            texts = key_texts(rows, columns)
            for at, line in enumerate(lines):
                if line <= self.highest and not found[at]:
                    known = through.get(digest(self.secret, [column[at] for column in texts]))
                    found[at] = known is not None and line <= known
        return found

    def apply(self, rows: pa.Table, tier: str, gone: Collection[Position] = ()) -> pa.Table:
        """The rows without those that are to go; in a tier whose rows are counted these are blanked instead.

        gone: positions of rows that went elsewhere. An insert that follows one of them, or names an erased key as its
        old one, keeps its own values and forgets the old key.
        """
        meant = self.meant(rows)
        gone = {*gone, *(position for position, goes in zip(positions_of(rows), meant, strict=True) if goes)}
        rows = self._without_old_keys(rows, gone)
        if not any(meant):
            return rows
        mask = pa.array(meant)
        return _blanked(rows, mask) if tier == COUNTED else rows.filter(pc.invert(mask))

    def old_keys(self, rows: pa.Table, gone: Collection[Position]) -> list[bool]:
        """Of every row whether it names an erased key as its old one."""
        texts = _column(rows, "_old_key")
        if not any(texts):
            return [False] * len(rows)
        known: dict[str, Line] = {}
        for record in self.records:
            known[record.old_digest] = max(record.through, known.get(record.old_digest, record.through))
        found = []
        for position, text in zip(positions_of(rows), texts, strict=True):
            line = None if text is None else known.get(digest(self.secret, [text]))
            by_text = line is not None and Line(position.era, position.lsn) <= line
            by_place = text is not None and Position(position.era, position.lsn, position.idx - 1) in gone
            found.append(by_text or by_place)
        return found

    @cached_property
    def _by_columns(self) -> dict[tuple[str, ...], dict[str, Line]]:
        found: dict[tuple[str, ...], dict[str, Line]] = {}
        for record in self.records:
            through = found.setdefault(record.columns, {})
            through[record.digest] = max(record.through, through.get(record.digest, record.through))
        return found

    def _without_old_keys(self, rows: pa.Table, gone: Collection[Position]) -> pa.Table:
        named = self.old_keys(rows, gone)
        if not any(named):
            return rows
        place = rows.column_names.index("_old_key")
        texts = [None if hit else text for hit, text in zip(named, _column(rows, "_old_key"), strict=True)]
        return rows.set_column(place, rows.schema.field(place), pa.array(texts, rows.schema.field(place).type))


def erasing(erasures: Erasures | None, tier: str, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches as `apply` leaves them; untouched where nothing is on record."""
    for batch in batches:
        if erasures is None:
            yield batch
        else:
            yield from erasures.apply(pa.Table.from_batches([batch]), tier).to_batches()


def digest(secret: bytes, values: Sequence[str | None]) -> str:
    return hmac.new(secret, json.dumps(list(values)).encode(), hashlib.sha256).hexdigest()


def key_texts(rows: pa.Table, columns: Sequence[str]) -> list[list[str | None]]:
    """The columns' values as texts, each column a list: the same for the same value, whoever wrote it."""
    return [_texts(rows.column(name)) for name in columns]


def given_texts(values: Mapping[str, str], types: Mapping[str, pa.DataType]) -> list[str | None]:
    """The texts of values that a person wrote. Raises ValueError where one is no value of its column."""
    found: list[str | None] = []
    for name, value in values.items():
        try:
            array = pa.array([bytes.fromhex(value)] if pa.types.is_binary(types[name]) else [value])
            found += _texts(pa.chunked_array([array.cast(types[name])]))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
            raise ValueError(f"{value!r} is no value of {name} ({types[name]}): {error}") from error
    return found


def _texts(column: pa.ChunkedArray) -> list[str | None]:
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return [None if value is None else value.hex() for value in column.to_pylist()]
    texts: list[str | None] = column.cast(pa.string()).to_pylist()
    return texts


def _column(rows: pa.Table, name: str) -> list[Any]:
    values: list[Any] = rows.column(name).to_pylist() if name in rows.column_names else [None] * len(rows)
    return values


def positions_of(rows: pa.Table) -> list[Position]:
    return [Position(*each) for each in zip(*(rows.column(name).to_pylist() for name in POSITION), strict=True)]


def _lines(rows: pa.Table) -> list[Line]:
    return [Line(*each) for each in zip(*(rows.column(name).to_pylist() for name in POSITION[:2]), strict=True)]


def _blanked(rows: pa.Table, mask: pa.Array) -> pa.Table:
    """The rows with nothing left of the meant ones but what they are counted by."""
    columns = []
    for schema_field, column in zip(rows.schema, rows.columns, strict=True):
        name, kind = schema_field.name, schema_field.type
        if name == "_raw":
            texts = [BLANK if hit else old for hit, old in zip(mask.to_pylist(), column.to_pylist(), strict=True)]
            columns.append(pa.array(texts, kind))
        elif name not in RESERVED:
            values = column.to_pylist()
            kept = [None if hit else value for hit, value in zip(mask.to_pylist(), values, strict=True)]
            columns.append(pa.array(kept, kind))
        else:
            columns.append(column)
    return pa.Table.from_arrays(columns, schema=rows.schema)
