"""What the catalog says of a type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_MAX_DOMAIN_DEPTH: Final = 32


@dataclass(frozen=True)
class TypeFacts:
    """A row of pg_type.

    base: a domain's base type and modifier; element: an array's; both 0 for other types.
    send: the C symbol of the function that gives its binary form, `library.symbol` where an extension has it,
    `locale.symbol` for money, whose text depends on lc_monetary; "" for a type that has none: it always comes as text.
    parts: the types of a composite's fields, a range's bounds, a multirange's ranges.
    """

    oid: int
    name: str
    base: int = 0
    base_typmod: int = -1
    element: int = 0
    delimiter: str = ","
    send: str = ""
    parts: tuple[int, ...] = ()


def base_type(oid: int, typmod: int, types: Mapping[int, TypeFacts]) -> tuple[int, int]:
    """The type below all domains, and its modifier."""
    for _ in range(_MAX_DOMAIN_DEPTH):
        facts = types.get(oid)
        if facts is None or not facts.base:
            break
        oid, typmod = facts.base, facts.base_typmod
    return oid, typmod
