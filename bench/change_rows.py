"""The same changes in the four forms that the benchmark of the streaming job compares.

A table of orders with 14 columns: keys, small and large numbers, a decimal, a double, codes of few values, a name that
is never the same twice, free text of some words, two times. 40 % inserts, 55 % updates, 5 % deletes (which carry the
key alone). About 150 bytes a change as an Avro datum.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import fastavro
import orjson

from schemas import block as blocks
from schemas.block import Block, Kind
from schemas.change_record import OPS, Column, TableSchema
from schemas.position import Position

SOURCE: Final = "bench"
TABLE: Final = "orders"
_START: Final = datetime(2026, 3, 1, tzinfo=UTC)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_ROWS_OF_A_TRANSACTION: Final = 10
_STATUS: Final = ("new", "paid", "packed", "shipped", "delivered", "returned", "cancelled")
_CURRENCY: Final = ("EUR", "USD", "GBP", "CHF", "JPY")
_COUNTRY: Final = (
    "AT",
    "BE",
    "CH",
    "CZ",
    "DE",
    "DK",
    "ES",
    "FI",
    "FR",
    "GB",
    "HU",
    "IE",
    "IT",
    "JP",
    "NL",
    "PL",
    "SE",
    "US",
)
_TEXT: Final = (
    "please leave with the neighbour next door call before delivery fragile gift wrap invoice by mail second floor "
    "ring twice back entrance no signature needed office hours only handle with care weekend replacement for earlier "
    "order customer asked about return policy discount applied manually check stock in other warehouse"
)
_WORDS: Final = tuple(_TEXT.split())


@dataclass(frozen=True)
class Change:
    """One change: what its transaction says of it, and its row by column (of a delete only the key)."""

    op: str
    lsn: int
    idx: int
    committed_at: datetime
    row: dict[str, Any]


def table_schema(table: str = TABLE) -> TableSchema:
    def column(name: str, avro: Any, source_type: str) -> Column:
        return Column(name, avro, name, source_type)

    money = {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}
    moment = {"type": "long", "logicalType": "timestamp-micros"}
    columns = (
        column("id", "long", "bigint"),
        column("customer_id", "long", "bigint"),
        column("product_id", "int", "integer"),
        column("quantity", "int", "integer"),
        column("price", money, "numeric(12,2)"),
        column("weight", "double", "double precision"),
        column("status", "string", "text"),
        column("currency", "string", "text"),
        column("country", "string", "text"),
        column("email", "string", "text"),
        column("note", "string", "text"),
        column("gift", "boolean", "boolean"),
        column("ordered_at", moment, "timestamp with time zone"),
        column("shipped_at", moment, "timestamp with time zone"),
    )
    return TableSchema(SOURCE, table, columns, ("id",))


def changes(count: int, seed: int = 1, at: datetime = _START) -> Iterator[Change]:
    """The first `count` changes of an endless load: the same ones for the same seed."""
    chance = random.Random(seed)
    for number in range(count):
        transaction, idx = divmod(number, _ROWS_OF_A_TRANSACTION)
        moment = at + timedelta(microseconds=transaction * 10_007)
        op = chance.choices("cud", (40, 55, 5))[0]
        identity = number if op == "c" else chance.randrange(max(1, number))
        row = {"id": identity} if op == "d" else _row(chance, identity, moment)
        yield Change(op, 1_000_000 + transaction * 2_400, idx, moment, row)


def _row(chance: random.Random, identity: int, moment: datetime) -> dict[str, Any]:
    ordered = moment - timedelta(seconds=chance.randrange(400_000), microseconds=chance.randrange(1_000_000))
    customer = chance.randrange(250_000)
    return {
        "id": identity,
        "customer_id": customer,
        "product_id": chance.randrange(20_000),
        "quantity": chance.randint(1, 9),
        "price": Decimal(chance.randint(99, 250_000)).scaleb(-2),
        "weight": chance.randint(1, 40_000) / 1000,
        "status": chance.choice(_STATUS),
        "currency": chance.choice(_CURRENCY),
        "country": chance.choice(_COUNTRY),
        "email": f"customer{customer}@example.com",
        "note": " ".join(chance.choices(_WORDS, k=chance.randint(2, 12))),
        "gift": chance.random() < 0.1,
        "ordered_at": ordered,
        "shipped_at": moment if chance.random() < 0.5 else None,
    }


class AvroForm:
    """Encodes each row's columns once; ours and the peer's datum differ in the metadata in front of them only."""

    def __init__(self, schema: TableSchema) -> None:
        fields = [{"name": column.name, "type": ["null", column.avro]} for column in schema.columns]
        self._columns = fastavro.parse_schema({"type": "record", "name": "Columns", "fields": fields})
        self._names = [column.name for column in schema.columns]

    def columns(self, row: dict[str, Any]) -> bytes:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, self._columns, {name: row.get(name) for name in self._names})
        return out.getvalue()

    @staticmethod
    def ours(change: Change, columns: bytes, era: int = 1) -> bytes:
        """The datum as the agent writes it: all eight metadata fields."""
        return b"".join(
            (
                _long(OPS.index(change.op)),
                _long(era),
                _long(change.lsn),
                _long(change.idx),
                _long(_micros(change.committed_at)),
                b"\0\0\0",  # nothing unchanged, no old key, nothing raw
                columns,
            )
        )

    @staticmethod
    def peers(change: Change, columns: bytes) -> bytes:
        """One datum a record, with the four metadata fields without which the rows could not be put in order."""
        return b"".join(
            (
                _long(OPS.index(change.op)),
                _long(change.lsn),
                _long(change.idx),
                _long(_micros(change.committed_at)),
                columns,
            )
        )


def peers_avro_schema(schema: TableSchema) -> dict[str, Any]:
    """The writer schema of `AvroForm.peers`."""
    kept = ("_op", "_lsn", "_idx", "_committed_at")
    fields = [field for field in schema.to_avro()["fields"] if field["name"] in kept or field["name"][0] != "_"]
    plain = [{"name": field["name"], "type": field["type"]} for field in fields]
    return {"type": "record", "name": "Change", "fields": plain}


def flat_json(change: Change) -> bytes:
    """One flat object: the metadata beside the columns, times as ISO text, a decimal as a number."""
    meta = {"_op": change.op, "_lsn": change.lsn, "_idx": change.idx, "_committed_at": change.committed_at}
    return orjson.dumps({**meta, **_plain(change.row)}, option=orjson.OPT_UTC_Z)


@dataclass(frozen=True)
class Envelope:
    """How Debezium is set up, as far as it changes what its JSON converter writes.

    Its defaults for PostgreSQL, but for the schema part and decimals (decimal.handling.mode=string; the default is a
    number in base64). zoned: the times are of columns with time zone, which come as text (ZonedTimestamp), and not
    of columns without, which come as microseconds. before: the row before an update is there (REPLICA IDENTITY FULL).
    schema: every message says what it is made of, as the converter does unless it is told not to.
    """

    zoned: bool = True
    before: bool = False
    schema: bool = False

    def json(self, change: Change) -> bytes:
        moment = _micros(change.committed_at)
        row = {name: self._value(value) for name, value in change.row.items()}
        whole = {column: row.get(column) for column in _COLUMN_NAMES}
        envelope = {
            "before": whole if change.op == "d" or (self.before and change.op == "u") else None,
            "after": None if change.op == "d" else whole,
            "source": {
                "version": "3.3.0.Final",
                "connector": "postgresql",
                "name": SOURCE,
                "ts_ms": moment // 1000,
                "snapshot": "false",
                "db": "shop",
                "sequence": f'["{change.lsn - 2_400}","{change.lsn}"]',
                "ts_us": moment,
                "ts_ns": moment * 1000,
                "schema": "public",
                "table": TABLE,
                "txId": change.lsn // 2_400,
                "lsn": change.lsn,
                "xmin": None,
            },
            "transaction": None,
            "op": change.op,
            "ts_ms": moment // 1000 + 40,
            "ts_us": moment + 40_000,
            "ts_ns": (moment + 40_000) * 1000,
        }
        return orjson.dumps({"schema": self._description(), "payload": envelope} if self.schema else envelope)

    def _value(self, value: Any) -> Any:
        if isinstance(value, Decimal):
            return str(value)
        if isinstance(value, datetime):
            return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if self.zoned else _micros(value)
        return value

    def _description(self) -> dict[str, Any]:
        time = ("string", "ZonedTimestamp") if self.zoned else ("int64", "MicroTimestamp")
        kinds = {"bigint": "int64", "integer": "int32", "double precision": "double", "boolean": "boolean"}
        image: list[dict[str, Any]] = []
        for column in table_schema().columns:
            if column.source_type == "timestamp with time zone":
                kind = {"type": time[0], "name": f"io.debezium.time.{time[1]}", "version": 1}
            else:
                kind = {"type": kinds.get(column.source_type, "string")}
            image.append({**kind, "optional": column.name != "id", "field": column.name})
        numbers: list[dict[str, Any]] = [
            {"type": "int64", "optional": True, "field": name}
            for name in ("ts_ms", "ts_us", "ts_ns", "txId", "lsn", "xmin")
        ]
        texts = ("version", "connector", "name", "snapshot", "db", "sequence", "schema", "table")
        source: list[dict[str, Any]] = [{"type": "string", "optional": False, "field": name} for name in texts]
        source += numbers
        value = {"type": "struct", "fields": image, "optional": True, "name": f"{SOURCE}.public.{TABLE}.Value"}
        return {
            "type": "struct",
            "fields": [
                {**value, "field": "before"},
                {**value, "field": "after"},
                {"type": "struct", "fields": source, "name": "io.debezium.connector.postgresql.Source"},
                {"type": "string", "optional": False, "field": "op"},
                *numbers[:3],
            ],
            "optional": False,
            "name": f"{SOURCE}.public.{TABLE}.Envelope",
            "version": 2,
        }


ENVELOPES: Final = {
    "debezium": Envelope(),
    "debezium-numbers": Envelope(zoned=False),
    "debezium-before": Envelope(before=True),
    "debezium-schema": Envelope(schema=True),
}
"""By form. The first is the one that is compared; the others tell what difference its setup makes."""


def data_block(
    schema: TableSchema,
    lane: str,
    part: Sequence[Change],
    datums: bytes,
    prev: Position | None,
    *,
    source: str = SOURCE,
    created_at: datetime = _START,
) -> Block:
    """The next block of a lane, around the datums of its changes."""
    first, last = (Position(1, change.lsn, change.idx) for change in (part[0], part[-1]))
    return blocks.build(
        Kind.DATA,
        source,
        schema.table,
        lane,
        schema=schema.fingerprint(),
        prev=prev,
        first=first,
        last=last,
        count=len(part),
        created_at=created_at,
        datums=datums,
    )


_COLUMN_NAMES: Final = tuple(column.name for column in table_schema().columns)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: float(value) if isinstance(value, Decimal) else value for name, value in row.items()}


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _long(value: int) -> bytes:
    """Avro's zig-zag variable-length long, of a value that is not negative."""
    value <<= 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
