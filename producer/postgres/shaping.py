"""What of a table leaves the site: columns left out, hashed or masked, rows filtered, another name in the lake."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from producer.postgres import avro
from producer.postgres.types import Encoder, Mapped

_MASK: Final = "*"


@dataclass(frozen=True)
class Shaping:
    """exclude_columns, hash_columns, mask_columns: by the source's names; what is masked keeps so many characters at
    its end. where: an SQL condition on the table's rows. rename: the table's name in the lake.
    """

    exclude_columns: frozenset[str] = frozenset()
    hash_columns: frozenset[str] = frozenset()
    mask_columns: Mapping[str, int] = field(default_factory=dict)
    where: str | None = None
    rename: str | None = None

    @property
    def hides(self) -> bool:
        """Whether values of the source must not leave the site."""
        return bool(self.exclude_columns or self.hash_columns or self.mask_columns)

    @property
    def columns(self) -> frozenset[str]:
        return self.exclude_columns | self.hash_columns | self.mask_columns.keys()

    def applied(self, column: str, mapping: Mapped, hash_key: bytes) -> Mapped:
        """How a column is written under this shaping."""
        if column in self.exclude_columns:
            return LEFT_OUT
        disguise = self.disguise(column, hash_key)
        return mapping if disguise is None else _shown_as(mapping, disguise)

    def disguise(self, column: str, hash_key: bytes) -> Encoder | None:
        """What the text of a value becomes in a column that is hashed or masked; None for the others."""
        if column in self.hash_columns:
            return lambda text: hmac.digest(hash_key, text, "sha256").hex().encode()
        if column in self.mask_columns:
            kept = self.mask_columns[column]
            return lambda text: masked(text.decode(), kept).encode()
        return None


AS_IT_IS: Final = Shaping()


def masked(text: str, kept: int) -> str:
    """All but the last `kept` characters hidden, and never more than half of them shown."""
    shown = min(kept, len(text) // 2)
    return _MASK * (len(text) - shown) + text[len(text) - shown :]


def _nothing(_: bytes) -> bytes:
    return b""


LEFT_OUT: Final = Mapped(None, _nothing, _nothing, _nothing, _nothing, null=b"")
"""A column that the schema does not have: nothing is written for it."""


def _shown_as(mapping: Mapped, shown: Encoder) -> Mapped:
    """A text that is made of the value's text; equal values give equal texts in both transfers."""
    printed = mapping.printed

    def binary(value: bytes) -> bytes:
        assert printed is not None
        return shown(printed(value))

    def encoded(form: Encoder) -> Encoder:
        return lambda value: avro.VALUE + avro.data(form(value))

    text = Mapped("string", encoded(shown), reprinted=shown, reading=mapping.reading)
    return text if printed is None else replace(text, encode_binary=encoded(binary), printed=binary)
