"""The hand-written Avro encodings are those of the specification: fastavro is the judge."""

from __future__ import annotations

import io
from typing import Any

import fastavro
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from producer.postgres import avro

LONGS = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 63).flatmap(
    lambda bits: st.sampled_from([1 << bits, -(1 << bits), (1 << bits) - 1]).filter(lambda n: n < 2**63)
)


def judged(schema: Any, value: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, value)
    return out.getvalue()


@given(LONGS)
@example(2**63 - 1)
@example(-(2**63))
def test_longs(value: int) -> None:
    """Zig-zag at every length, at the borders of every table of ours too."""
    assert avro.long(value) == judged("long", value)


@given(st.lists(st.text(max_size=200), max_size=20))
def test_optional_strings(values: list[str]) -> None:
    """An empty list is null, since no change has an empty list of unchanged columns."""
    assert avro.optional_strings(values) == judged(["null", {"type": "array", "items": "string"}], values or None)


@given(st.dictionaries(st.text(), st.text(), max_size=5))
def test_optional_map(values: dict[str, str]) -> None:
    assert avro.optional_map(values) == judged(["null", {"type": "map", "values": "string"}], values or None)


@pytest.mark.parametrize("value", [None, "", "é" * 100])
def test_optional_string(value: str | None) -> None:
    assert avro.optional_string(value) == judged(["null", "string"], value)
