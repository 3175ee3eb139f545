"""A major fold of a table that is far larger than what DuckDB may use; says how much memory it took.

    python -m tests.fold.large_fold --rows 15000000 --memory-mib 128      (`make large-fold`)

The fold runs in a process of its own, whose highest resident set is told beside the table's size.
"""

from __future__ import annotations

import argparse
import json
import pickle
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import fold_corpus
from glue_streaming.fold.layout import Bounds
from schemas.position import Line
from tests.fold.local_lake import IO, LocalLake
from tests.memory import peak_bytes


def made(rows: int, memory_bytes: int, folder: Path) -> tuple[LocalLake, int]:
    """The table, with a change of every tenth row in its log; and its base in bytes of Arrow."""
    from glue_streaming import data_files
    from glue_streaming.fold.lake_files import written_file

    schema, shape = fold_corpus.schema_and_shape()
    lake = LocalLake(schema, shape, folder, Bounds(16 << 20, 2 << 30, memory_bytes))
    arrow, size = data_files.arrow_schema(schema), 0
    step = 250_000
    plan = [("base", fold_corpus.base(min(step, rows - first), first)) for first in range(0, rows, step)]
    plan += [("log", fold_corpus.changes(rows // 10, rows, lsn=rows + 1))]
    for tier, batches in plan:
        conformed = []
        for batch in batches:
            conformed += fold_corpus.conformed(batch, arrow)
            size += batch.nbytes if tier == "base" else 0
        written = data_files.write(iter(conformed), schema=schema, location=f"file://{folder}", tier=tier, io=IO)
        assert written is not None
        lake.files.append(written_file(written, schema))
    return lake, size


def measured(rows: int, memory_bytes: int) -> dict[str, Any]:
    """table_bytes, limit_bytes and peak_bytes (of the whole process) of one major fold; files and rows it left."""
    with tempfile.TemporaryDirectory(prefix="headrace-large-") as name:
        lake, table_bytes = made(rows, memory_bytes, Path(name))
        (Path(name) / "lake").write_bytes(pickle.dumps((lake.schema, lake.shape, lake.bounds, lake.files)))
        answer = subprocess.run(
            [sys.executable, "-m", "tests.fold.large_fold", "--fold", name], capture_output=True, text=True, check=True
        )
        return {"table_bytes": table_bytes, "limit_bytes": memory_bytes, **json.loads(answer.stdout)}


def _fold(folder: Path) -> dict[str, Any]:
    schema, shape, bounds, files = pickle.loads((folder / "lake").read_bytes())
    lake = LocalLake(schema, shape, folder, bounds, files=files)
    lake.check = lambda: None  # type: ignore[method-assign]  # it would hold all rows
    layout = lake.fold(Line(1, 1 << 60), major=True)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "peak_bytes": peak_bytes(),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "removed_files": len(layout.removed),
        "base_rows": sum(file.rows for file in lake.files if file.tier == "base"),
        "base_files": sum(file.tier == "base" for file in lake.files),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=15_000_000)
    parser.add_argument("--memory-mib", type=int, default=128)
    parser.add_argument("--fold", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    found = _fold(given.fold) if given.fold else measured(given.rows, given.memory_mib << 20)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
