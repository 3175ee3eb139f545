"""Erasures in what lies outside the tables: raw bytes of holes, and payloads of blocks too large for the stream.

A raw block is written again with the erased rows blanked, so that it still has the positions that its hole waits for.
What cannot be read, and may be of a table with erasures, is deleted: its hole then needs a resend or a snapshot.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import fastavro

from glue_streaming import decode
from glue_streaming.erasures import BLANK, Erasures, digest, positions_of
from glue_streaming.state import StreamState
from schemas import block as blocks
from schemas import control
from schemas.block import Block, Kind
from schemas.change_record import RESERVED
from schemas.errors import SchemasError
from schemas.position import Line, Position
from schemas.registry import Registry

Noted = Callable[[str, str], None]
"""Told what is about to be done to which object, before it is: a run that dies behind it does that again."""


def erase_raw(
    s3: Any, bucket: str, source: str, registry: Registry, erasures: Mapping[str, Erasures], noted: Noted
) -> Counter[str]:
    """Rewrites or deletes the source's raw blocks as the tables' erasures want it: how many of each."""
    done: Counter[str] = Counter()

    def delete(key: str) -> None:
        noted("raw_deleted", key)
        s3.delete_object(Bucket=bucket, Key=key)
        done["raw_deleted"] += 1

    for key in _keys(s3, bucket, f"raw/{source}/"):
        found = s3.get_object(Bucket=bucket, Key=key)
        data = bytes(found["Body"].read())
        try:
            block = blocks.decode(data)
        except SchemasError:
            delete(key)
            continue
        meant = erasures.get(block.table)
        if meant is None or not meant.reach(Line(block.first.era, block.first.lsn)):
            continue
        try:
            wanted = _without(s3, block, registry, meant)
        except (SchemasError, KeyError):
            wanted = None
        if wanted is None:
            delete(key)
        elif wanted != block:
            noted("raw_rewritten", key)
            s3.put_object(Bucket=bucket, Key=key, Body=blocks.encode(wanted), Metadata=found["Metadata"])
            done["raw_rewritten"] += 1
    return done


def erase_claims(s3: Any, bucket: str, source: str, table: str, state: StreamState, noted: Noted) -> int:
    """Deletes the table's claims that its marks have passed: nobody reads them again."""
    prefix, gone = f"claims/{source}/{table}/", 0
    for key in _keys(s3, bucket, prefix):
        lane, _, name = key.removeprefix(prefix).rpartition("/")
        era, lsn, idx = name.split("-")
        mark = state.marks.get(lane)
        snapshot = control.parse_snapshot_lane(lane) is not None and mark is None
        if snapshot or (mark is not None and Position(int(era), int(lsn, 16), int(idx)) <= mark.position):
            noted("claims_deleted", key)
            s3.delete_object(Bucket=bucket, Key=key)
            gone += 1
    return gone


def _without(s3: Any, block: Block, registry: Registry, erasures: Erasures) -> Block | None:
    """The block with what is meant blanked, its claim taken in; None where it has to go as a whole."""
    payload = None
    if block.claim is not None:
        bucket, _, key = block.claim.removeprefix("s3://").partition("/")
        payload = bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
        block = replace(block, claim=None, records=payload)
    datums = blocks.datums(block)
    if block.kind is Kind.REJECT:
        named = digest(erasures.secret, [control.decode_reject(datums).key])
        return None if any(named == record.old_digest for record in erasures.records) else block
    if block.kind not in (Kind.DATA, Kind.SNAPSHOT):
        return block
    schema = registry.by_fingerprint(block.schema).schema.to_avro()
    rows = decode.to_arrow(schema, [(block.count, datums)])
    meant = erasures.meant(rows, blanked=False)
    gone = {position for position, hit in zip(positions_of(rows), meant, strict=True) if hit}
    named_old = erasures.old_keys(rows, gone)
    if not any(meant) and not any(named_old):
        return block
    parsed = fastavro.parse_schema(schema, _write_hint=False)
    stream, out = io.BytesIO(datums), io.BytesIO()
    for hit, old in zip(meant, named_old, strict=True):
        record: Any = fastavro.schemaless_reader(stream, parsed, None)
        if hit:
            record = {name: value if name in RESERVED else None for name, value in record.items()}
            record |= {"_raw": dict(BLANK), "_unchanged": None}
        if hit or old:
            record["_old_key"] = None
        fastavro.schemaless_writer(out, parsed, record)
    raw = out.getvalue()
    return replace(block, checksum=blocks.checksum(raw), records=blocks.compress(block.codec, raw))


def _keys(s3: Any, bucket: str, prefix: str) -> Iterator[str]:
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        yield from (item["Key"] for item in page.get("Contents", []))
