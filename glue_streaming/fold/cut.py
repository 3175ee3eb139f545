"""What a fold reads from the catalog's watermark entry: the ring of watermarks and the tables' lines. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from glue_streaming.fold.errors import BadCut
from glue_streaming.watermark import Published, aged
from schemas.position import Line

RING: Final = "headrace.ring"
LINES: Final = "headrace.lines"
EXCLUDED: Final = "headrace.excluded"


@dataclass(frozen=True)
class Cut:
    """ring: oldest first. lines: L of every table, in the cut or not. excluded: tables without a cut view."""

    ring: tuple[Published, ...] = ()
    lines: Mapping[str, Line] = field(default_factory=dict)
    excluded: frozenset[str] = frozenset()

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
            lines={
                table: Line(int(line[0]), int(line[1]))
                for table, line in json.loads(parameters.get(LINES, "{}")).items()
                if line is not None
            },
            excluded=frozenset(json.loads(parameters.get(EXCLUDED, "[]"))),
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise BadCut(f"the watermark entry's parameters cannot be read: {error}") from error
