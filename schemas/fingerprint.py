"""CRC-64-AVRO fingerprints, as the Avro specification defines the algorithm."""

from __future__ import annotations

import json
from typing import Any

import fastavro.schema

_EMPTY = 0xC15D213AA4D7A795
_MASK = (1 << 64) - 1


def _table() -> tuple[int, ...]:
    entries = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (_EMPTY & -(value & 1) & _MASK)
        entries.append(value)
    return tuple(entries)


_TABLE = _table()


def crc64_avro(data: bytes) -> bytes:
    """The 64-bit Rabin fingerprint of the data, 8 bytes little-endian."""
    crc = _EMPTY
    for byte in data:
        crc = (crc >> 8) ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc.to_bytes(8, "little")


def parsing_fingerprint(schema: dict[str, Any]) -> bytes:
    """The specification's fingerprint: over the Parsing Canonical Form, which knows no logical types."""
    return crc64_avro(fastavro.schema.to_parsing_canonical_form(schema).encode())


def schema_fingerprint(schema: dict[str, Any]) -> bytes:
    """The fingerprint of a table's writer schema: over its whole text, as compact JSON with sorted keys.

    The Parsing Canonical Form drops precision, scale and logical types: numeric(10,2) and numeric(10,4) would share a
    fingerprint, and the values of one would be read with the scale of the other.
    """
    return crc64_avro(json.dumps(schema, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())
