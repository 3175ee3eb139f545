"""Values in binary form whose text only the source knows: it is asked to print them, many at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import psycopg
from psycopg import pq

from producer.errors import SourceUnreachable, TextNeeded
from producer.postgres.connection import OrdinaryConnection
from producer.postgres.types import Ask

_MOST_VALUES: Final = 500
_MOST_BYTES: Final = 4 * 1024 * 1024


def asking(connection: OrdinaryConnection, type_oid: int) -> Ask:
    """What asks for the texts of a type's values. It raises SourceUnreachable, or TextNeeded where the source does not
    take back what it sent, as when the type has changed since."""

    def ask(values: Sequence[bytes]) -> list[bytes]:
        return [text for some in _portions(values) for text in _texts(connection, type_oid, some)]

    return ask


def _texts(connection: OrdinaryConnection, type_oid: int, values: list[bytes]) -> list[bytes]:
    count = len(values)
    query = b"VALUES " + b",".join([b"($%d)" % place for place in range(1, count + 1)])
    pgconn = connection.pgconn
    result = pgconn.exec_params(query, values, [type_oid] * count, [pq.Format.BINARY] * count, pq.Format.TEXT)
    if result.status == pq.ExecStatus.TUPLES_OK:
        return [result.get_value(row, 0) or b"" for row in range(count)]
    error = psycopg.errors.error_from_result(result)
    if isinstance(error, psycopg.OperationalError) or pgconn.status != pq.ConnStatus.OK:
        raise SourceUnreachable(f"values cannot be printed: {error}")
    raise TextNeeded(f"a value of type {type_oid} cannot be printed ({error}): going on in text")


def _portions(values: Sequence[bytes]) -> Iterator[list[bytes]]:
    portion: list[bytes] = []
    size = 0
    for value in values:
        if portion and (len(portion) == _MOST_VALUES or size + len(value) > _MOST_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(value)
        size += len(value)
    if portion:
        yield portion
