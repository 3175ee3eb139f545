"""Which columns can be written many rows at once, found from what writes them one by one."""

from __future__ import annotations

from typing import Final

from producer.postgres import types
from producer.postgres.columns import Form, Kind
from producer.postgres.printed import SCALARS, Printer
from producer.postgres.shaping import LEFT_OUT
from producer.postgres.types import AskedText, BinaryDecimal, Mapped, PrintedText, encode_text

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
