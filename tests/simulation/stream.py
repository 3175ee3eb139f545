"""The simulated stream: of every lane the blocks in the order in which they were accepted, and one control lane."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from random import Random
from typing import NamedTuple

from schemas.control import Progress, SnapshotEnd
from schemas.position import Position
from tests.simulation.source import Row


class LaneKey(NamedTuple):
    table: str
    lane: str


@dataclass(frozen=True)
class Block:
    """What the wire carries, less its encoding. `end` is set in the block that closes a group of a snapshot.

    version: of the table's structure, one in a block.
    """

    key: LaneKey
    prev: Position | None
    last: Position
    rows: tuple[Row, ...]
    end: SnapshotEnd | None = None
    version: int = 1
    readable: bool = True


@dataclass(frozen=True)
class Faults:
    """Chances, per block: lost behind the agent's back, garbled, sent twice after an unclear answer."""

    lost: float = 0.0
    garbled: float = 0.0
    doubled: float = 0.1


NO_FAULTS = Faults()


class Stream:
    """Never forgets, so that a reader may start again anywhere."""

    def __init__(self) -> None:
        self.lanes: dict[LaneKey, list[Block]] = defaultdict(list)
        self.control: list[Progress] = []

    def put(self, block: Block, random: Random, faults: Faults) -> None:
        if random.random() < faults.lost:
            return
        if random.random() < faults.garbled:
            block = replace(block, readable=False)
        self.lanes[block.key].extend([block] * (2 if random.random() < faults.doubled else 1))
