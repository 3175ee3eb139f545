"""The forms of columns: which can be written many rows at once, found from what writes them one by one."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final, NamedTuple

from producer.postgres import types
from producer.postgres.printed import SCALARS, Printer
from producer.postgres.shaping import LEFT_OUT
from producer.postgres.types import Ask, AskedText, BinaryDecimal, Encoder, Mapped, PrintedText, encode_text


class Kind(Enum):
    """How a column's values are written. ODD: one by one, by the form's `encode`. LEFT_OUT: not at all."""

    BOOL = auto()
    INT = auto()
    OID = auto()
    FLOAT = auto()
    DATE = auto()
    TIMESTAMP = auto()
    DECIMAL = auto()
    TEXT = auto()
    JSONB = auto()
    BYTES = auto()
    UUID = auto()
    ODD = auto()
    LEFT_OUT = auto()


class Form(NamedTuple):
    """The form of a column. Columns of equal form are written together, whatever their tables.

    width: bytes of a value of fixed width. precision, scale: of a decimal.
    encode: a value as the nullable union's value branch; raises Unheld or ValueError as the scalar encoders do.
    as_text: values come as text. ask: turns binary values to the texts that `encode` takes.
    """

    kind: Kind
    width: int = 0
    precision: int = 0
    scale: int = 0
    encode: Encoder | None = None
    as_text: bool = False
    ask: Ask | None = None


_TEXTS: Final[dict[Printer, Form]] = {
    SCALARS["textsend"]: Form(Kind.TEXT),
    SCALARS["jsonb_send"]: Form(Kind.JSONB),
    SCALARS["uuid_send"]: Form(Kind.UUID, 16),
}
_SCALAR_FORMS: Final[dict[int, Form]] = {
    types.BOOL: Form(Kind.BOOL, 1),
    types.INT2: Form(Kind.INT, 2),
    types.INT4: Form(Kind.INT, 4),
    types.INT8: Form(Kind.INT, 8),
    types.OID: Form(Kind.OID, 4),
    types.FLOAT4: Form(Kind.FLOAT, 4),
    types.FLOAT8: Form(Kind.FLOAT, 8),
    types.BYTEA: Form(Kind.BYTES),
    types.DATE: Form(Kind.DATE, 4),
    types.TIMESTAMP: Form(Kind.TIMESTAMP, 8),
    types.TIMESTAMPTZ: Form(Kind.TIMESTAMP, 8),
}
_SCALARS: Final = {types.SCALARS[oid].encode_binary: form for oid, form in _SCALAR_FORMS.items()}


def form_of(mapping: Mapped) -> Form:
    """The form that writes what mapping.encode_binary does, or mapping.encode where the column comes as text. A column
    whose encoder is anything else than its type's own (masked, hashed) has that encoder called for each value."""
    if mapping is LEFT_OUT:
        return Form(Kind.LEFT_OUT)
    encode = mapping.encode_binary
    if encode is None:
        plain = mapping.encode is encode_text
        return Form(Kind.TEXT, as_text=True) if plain else Form(Kind.ODD, encode=mapping.encode, as_text=True)
    if isinstance(encode, AskedText):
        return Form(Kind.ODD, encode=encode.encode, ask=encode.ask)
    if isinstance(encode, BinaryDecimal):
        return Form(Kind.DECIMAL, precision=encode.precision, scale=encode.scale)
    if isinstance(encode, PrintedText):
        return _TEXTS.get(encode.printed, Form(Kind.ODD, encode=encode))
    return _SCALARS.get(encode, Form(Kind.ODD, encode=encode))
