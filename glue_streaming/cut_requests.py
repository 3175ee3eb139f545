"""`headrace cut exclude` and `include`: operators take a table out of the cut, so that the others go on, and let it in.

Out: its cut view raises at once, in place, and says who and why; the watermark goes on a horizon later, when no query
can still be planned with the view as it was. In: it comes back by itself at the first watermark that it covers and
that lies at or above its fold line.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final, Protocol

from glue_streaming import watermark_view
from glue_streaming.requests import CutRequest
from glue_streaming.watermark_view import Entry

EXCLUDED: Final = "its cut view raises, and the cut goes on without it after the fold horizon"
INCLUDED: Final = "it comes back by itself as soon as the watermark is one that it covers"

Answer = tuple[CutRequest, str, str]


class CutViews(Protocol):
    def take_away(self, table: str, why: str) -> bool: ...


def carry_out(glue: Any, views: CutViews, requests: Iterable[CutRequest], now: float) -> list[Answer]:
    """Carries out requests about the cut of one source, in their order; (request, status, detail) of those settled.

    Those that find no watermark yet, or meet another writer of its entry, are left for the next call. Idempotent: a
    request whose answer was lost is carried out again, to the same end.
    """
    answers: list[Answer] = []
    for request in requests:
        entry = watermark_view.read(glue, request.source)
        if entry.line is None:
            return answers
        refusal = refused(entry, request)
        if refusal is None:
            wanted = asked(entry, request, now)
            if request.kind == "exclude":
                views.take_away(request.table, wanted.by_operator[request.table])
            if wanted != entry and not watermark_view.write(glue, request.source, wanted):
                return answers
        detail = EXCLUDED if request.kind == "exclude" else INCLUDED
        answers.append((request, "done", detail) if refusal is None else (request, "refused", refusal))
    return answers


def refused(entry: Entry, request: CutRequest) -> str | None:
    """Why a request cannot be met; None where it can. Pure."""
    if request.table not in entry.lines:
        return f"there is no table {request.table} in {request.source}"
    if request.kind == "exclude" and entry.closure is not None and request.table in entry.closure.waits_for:
        return "the cut is closed for its repair already, and opens with it"
    if request.kind == "include" and request.table not in entry.left:
        return "it is in the cut"
    if request.kind == "include" and request.table not in entry.by_operator:
        return "it left by itself, and comes back by itself once its holes are mended"
    return None


def asked(entry: Entry, request: CutRequest, now: float) -> Entry:
    """The entry as the request wants it. Pure."""
    others = {table: why for table, why in entry.by_operator.items() if table != request.table}
    if request.kind == "include":
        return replace(entry, by_operator=others)
    why = f"{request.by} took it out" + (f": {request.because}" if request.because else "")
    return replace(
        entry,
        by_operator={**others, request.table: why},
        left={**entry.left, request.table: entry.left.get(request.table, now)},
        missing={**entry.missing, request.table: why},
    )
