"""A record's data in the form it travels and is stored in: base64 text. Pure.

It comes in and goes out as base64, so it is checked and counted, but never decoded: at 512 KiB a record, decoding and
encoding would be most of the service's work.
"""

import string

from .kinesis_errors import KinesisError

_ALPHABET = (string.ascii_letters + string.digits + "+/").encode()


def checked(text: str) -> bytes:
    """The text as bytes. Raises KinesisError when it is not base64 with its padding."""
    try:
        data = text.encode("ascii")
    except UnicodeEncodeError:
        raise _not_base64() from None
    padding = data.translate(None, _ALPHABET)
    if len(data) % 4 or padding not in (b"", b"=", b"==") or not data.endswith(padding):
        raise _not_base64()
    return data


def size(data: bytes) -> int:
    """How many bytes the data has when it is decoded, which is what the service's limits count."""
    return len(data) // 4 * 3 - data.count(b"=", -2)


def _not_base64() -> KinesisError:
    return KinesisError("SerializationException", "Data is not base64")
