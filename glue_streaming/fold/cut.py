"""What a fold reads from the catalog's watermark entry: the ring of watermarks and the tables' lines. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from glue_streaming.fold.errors import BadCut
from glue_streaming.fold.line import Closure
from glue_streaming.watermark import Published, aged
from schemas.position import Line

RING: Final = "headrace.ring"
LINES: Final = "headrace.lines"
EXCLUDED: Final = "headrace.excluded"
REPAIR_LINES: Final = "headrace.repair_lines"
CLOSURE: Final = "headrace.closure"


@dataclass(frozen=True)
class Cut:
    """ring: oldest first. lines: L of every table, in the cut or not. excluded: tables without a cut view.

    repair_lines: L for the activation of a table's complete snapshot. closure: set while the cut is closed for one.
    """

    ring: tuple[Published, ...] = ()
    lines: Mapping[str, Line] = field(default_factory=dict)
    excluded: frozenset[str] = frozenset()
    repair_lines: Mapping[str, Line] = field(default_factory=dict)
    closure: Closure | None = None

    @property
    def newest(self) -> Line | None:
        """The watermark that stands now."""
        return self.ring[-1].line if self.ring else None

    def aged(self, horizon_seconds: float) -> Line | None:
        return aged(self.ring, horizon_seconds)


def cut_of(parameters: Mapping[str, str]) -> Cut:
    """The cut that the parameters of `<source>_cut.watermark` hold. Raises BadCut."""
    try:
        return Cut(
            ring=tuple(
                Published(Line(int(era), int(lsn)), float(at))
                for era, lsn, at in json.loads(parameters.get(RING, "[]"))
            ),
            lines=_lines(parameters.get(LINES, "{}")),
            excluded=frozenset(json.loads(parameters.get(EXCLUDED, "[]"))),
            repair_lines=_lines(parameters.get(REPAIR_LINES, "{}")),
            closure=_closure(parameters.get(CLOSURE, "null")),
        )
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise BadCut(f"the watermark entry's parameters cannot be read: {error}") from error


def _lines(text: str) -> dict[str, Line]:
    return {table: Line(int(line[0]), int(line[1])) for table, line in json.loads(text).items() if line is not None}


def _closure(text: str) -> Closure | None:
    found = json.loads(text)
    return None if found is None else Closure(float(found["at"]), found["waits_for"])
