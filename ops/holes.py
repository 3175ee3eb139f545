"""`headrace holes`: what is missing from which table and why, and the requests that mend it.

Lists come from the tables' own properties. Nothing is mended here: requests are left in DynamoDB, for the source's
agent (resend, resnapshot) or for the streaming job (replay, accept), and the verb waits for the answer.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from glue_streaming.holes import Hole
from glue_streaming.raw import ranges
from glue_streaming.requests import AGENT_PREFIX, OPEN, PREFIX, unacceptable
from glue_streaming.state import Accepted, SnapshotState, StreamState
from ops import tables
from ops.errors import NoSuchHole, NotApplicable, TookTooLong
from schemas.control import parse_snapshot_lane
from schemas.position import Position

WAIT_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.5
VERBS: Final = ("resend", "replay", "resnapshot", "accept")
_OF_THE_AGENT: Final = ("resend", "resnapshot")
EFFECTS: Final[Mapping[str, str]] = {
    "resend": "the agent sends the blocks again, if its spool still holds them",
    "replay": "the streaming job reads the stored bytes again",
    "resnapshot": "the agent reads the whole table again; its activation closes the hole",
    "accept": "the changes stay missing for good, and the cut goes on; who and why are kept",
}


@dataclass(frozen=True)
class Place:
    """Where a source's tables and requests are."""

    glue: Any
    dynamodb: Any
    source: str
    sources_table: str


@dataclass(frozen=True)
class OpenHole:
    """A hole with its table's state. out_of_cut: why the table has left the cut, where it has."""

    table: str
    hole: Hole
    state: StreamState
    out_of_cut: str | None = None

    @property
    def id(self) -> str:
        """Of exactly these positions: a hole that grows has another id, so that nobody accepts what was not seen."""
        text = json.dumps([self.table, self.hole.lane, list(self.hole.last)])
        return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()

    def refusals(self) -> dict[str, str | None]:
        """Of every verb: why it cannot help here, or None."""
        return {verb: refusal(verb, self.hole, self.state) for verb in VERBS}

    def to_json(self) -> dict[str, Any]:
        hole = self.hole
        return {
            "id": self.id,
            "table": self.table,
            "lane": hole.lane,
            "after": None if hole.after is None else list(hole.after),
            "last": list(hole.last),
            "reason": hole.reason,
            "opened_at": hole.opened_at,
            "raw": hole.where,
            "out_of_cut": self.out_of_cut,
            "mends": [verb for verb, why in self.refusals().items() if why is None],
        }


@dataclass(frozen=True)
class Found:
    """All that is wrong with a source's tables. void: (table, number, state) of snapshots that will not be complete."""

    open: tuple[OpenHole, ...]
    accepted: tuple[tuple[str, Accepted], ...]
    void: tuple[tuple[str, int, SnapshotState], ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "holes": [item.to_json() for item in self.open],
            "accepted": [accepted_json(table, item) for table, item in self.accepted],
            "void_snapshots": [{"table": t, "snapshot": n, "why": state.void} for t, n, state in self.void],
        }


def accepted_json(table: str, item: Accepted) -> dict[str, Any]:
    hole = item.hole
    positions = {"after": None if hole.after is None else list(hole.after), "last": list(hole.last)}
    return {
        "table": table,
        "lane": hole.lane,
        **positions,
        "reason": hole.reason,
        "by": item.by,
        "because": item.because,
        "at": item.at,
    }


def refusal(verb: str, hole: Hole, state: StreamState) -> str | None:
    """Why a verb cannot mend a hole; None where it can. Pure."""
    if verb == "accept":
        return unacceptable(state, hole)
    if verb == "resnapshot":
        return None
    if parse_snapshot_lane(hole.lane) is not None:
        return "it lies in a snapshot, which is void with it: only another snapshot helps"
    if state.sealed is not None and hole.ends_below(state.sealed):
        return "a complete snapshot repairs it, and closes it when the fold takes it in"
    if all(part.startswith("rejected:") for part in hole.reason.split("; ")):
        return "the agent could not encode the change: the same bytes bring the same refusal"
    if verb == "replay" and not ranges(hole.where):
        return "there are no raw bytes of it: it never came"
    return None


def read(place: Place) -> Found:
    """What the tables' properties say now."""
    missing = tables.watermark(place.glue, place.source).status.get("missing", {})
    found = tables.lake_tables(place.glue, place.source)
    return Found(
        open=tuple(OpenHole(t.name, hole, t.stream, missing.get(t.name)) for t in found for hole in t.stream.holes),
        accepted=tuple((t.name, item) for t in found for item in t.stream.accepted),
        void=tuple((t.name, n, s) for t in found for n, s in sorted(t.stream.snapshots.items()) if s.void is not None),
    )


def find(found: Found, wanted: str) -> OpenHole:
    """The hole with that id, or with an id that begins so. Raises NoSuchHole."""
    fitting = [item for item in found.open if item.id.startswith(wanted)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise NoSuchHole(f"{wanted} is the beginning of {len(fitting)} ids: " + ", ".join(item.id for item in fitting))
    raise NoSuchHole(
        f"there is no open hole {wanted}: it was mended, or has grown and has another id. "
        "`headrace holes list` shows those there are"
    )


def table_of(found: Found, what: str) -> str:
    """The table that is meant by its name, or by the id of a hole in it."""
    return next((item.table for item in found.open if item.id == what), what)


def request(place: Place, verb: str, hole: OpenHole, *, by: str, because: str = "") -> str:
    """Leaves a request in DynamoDB; returns its item's name. Raises NotApplicable where it could not help."""
    why_not = refusal(verb, hole.hole, hole.state)
    if why_not is not None:
        helps = [name for name, why in hole.refusals().items() if why is None]
        raise NotApplicable(f"{verb} does not mend {hole.id}: {why_not}. What does: {', '.join(helps) or 'waiting'}")
    return _put(place, verb, hole.table, by, because, hole.hole)


def request_snapshot(place: Place, table: str, *, by: str, because: str = "") -> str:
    """Asks the agent for another snapshot of a table; returns the item's name."""
    return _put(place, "resnapshot", table, by, because, None)


def request_cut(place: Place, verb: str, table: str, *, by: str, because: str = "") -> str:
    """Asks the streaming job to exclude a table from the cut, or to include it; returns the item's name."""
    return _put(place, verb, table, by, because, None)


def await_answer(
    place: Place,
    item: str,
    seconds: float = WAIT_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[str, str]:
    """(status, detail) of the answer. Raises TookTooLong; the request stays, and is still answered."""
    deadline = clock() + seconds
    while clock() < deadline:
        found = place.dynamodb.get_item(
            TableName=place.sources_table,
            Key={"source": {"S": place.source}, "item": {"S": item}},
            ConsistentRead=True,
        ).get("Item", {})
        status = found.get("status", {}).get("S", OPEN)
        if status != OPEN:
            return status, found.get("detail", {}).get("S", "")
        sleep(_LOOK_SECONDS)
    who = "the agent" if item.startswith(AGENT_PREFIX) else "the streaming job"
    raise TookTooLong(f"{who} has not answered {item} within {seconds:.0f} s: does it run? The request stays there")


def show_list(found: Found, console: Console, now: datetime) -> None:
    """For people: what is missing, since when, and what can mend it."""
    if not found.open:
        console.print("no open holes")
    else:
        view = Table(show_edge=False, pad_edge=False)
        for name in ("id", "table", "lane", "missing behind", "up to", "for", "reason", "mends"):
            view.add_column(name, overflow="fold")
        for item in found.open:
            hole = item.hole
            mends = ", ".join(verb for verb, why in item.refusals().items() if why is None)
            view.add_row(
                *(item.id, item.table, hole.lane, _position(hole.after), str(hole.last), _age(hole.opened_at, now)),
                *(hole.reason if len(hole.reason) < 80 else f"{hole.reason[:77]}...", mends or "a fold, soon"),
            )
        console.print(view)
    for table in sorted({item.table for item in found.open if item.out_of_cut}):
        console.print(f"{table} has left the cut; the other tables go on", markup=False)
    for table, number, state in found.void:
        console.print(f"snapshot {number} of {table} is void: {state.void}", markup=False)
    if found.accepted:
        console.print(f"{len(found.accepted)} accepted: they stay missing for good (--json names them)")


def show_one(item: OpenHole, console: Console, now: datetime) -> None:
    hole = item.hole
    lines = {
        "hole": item.id,
        "table": item.table,
        "lane": hole.lane,
        "missing": f"behind {_position(hole.after)}, up to {hole.last}",
        "since": f"{hole.opened_at} ({_age(hole.opened_at, now)})",
        "reason": hole.reason,
        "raw bytes": hole.where or "none: it never came",
        "cut": "the table has left it" if item.out_of_cut else "stands still",
    }
    for name, value in lines.items():
        console.print(f"{name:10} {value}", markup=False, soft_wrap=True)
    for verb, why in item.refusals().items():
        console.print(f"{verb:10} {EFFECTS[verb] if why is None else f'not here: {why}'}", markup=False, soft_wrap=True)


def whoever() -> str:
    """Who asks, where nobody says so."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _put(place: Place, verb: str, table: str, by: str, because: str, hole: Hole | None) -> str:
    prefix = AGENT_PREFIX if verb in _OF_THE_AGENT else PREFIX
    name = f"{prefix}{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
    item = {"source": place.source, "item": name, "kind": verb, "table": table, "by": by, "status": OPEN}
    if because:
        item["because"] = because
    if hole is not None:
        item |= {"lane": hole.lane, "after": json.dumps(_listed(hole.after)), "last": json.dumps(_listed(hole.last))}
    place.dynamodb.put_item(TableName=place.sources_table, Item={key: {"S": value} for key, value in item.items()})
    return name


def _listed(position: Position | None) -> Sequence[int] | None:
    return None if position is None else list(position)


def _position(position: Position | None) -> str:
    return "the beginning" if position is None else str(position)


def _age(opened_at: str, now: datetime) -> str:
    minutes = int((now - datetime.fromisoformat(opened_at)).total_seconds()) // 60
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 48 * 60 else f"{minutes // 1440} days"
