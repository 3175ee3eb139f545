"""Small files of history become large ones: which, and how. Their rows follow each other as their files do."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.schema import Schema

from glue_streaming import data_files
from glue_streaming.data_files import WrittenFile
from glue_streaming.fold import file_rows
from glue_streaming.fold.lake_files import LakeFile, in_groups, paths_of, size_of
from glue_streaming.fold.part import LocalFiles
from glue_streaming.fold.scratch import BATCH_ROWS

MANY: Final = 8
"""Fewer files are left alone; and a size is so many times the next smaller one."""

_LITTLE: Final = 100
"""Row groups of whose bytes less than a hundredth is in the footer take a scan hardly longer than large ones do."""


def packs(history: Sequence[LakeFile], target_file_bytes: int) -> list[list[LakeFile]]:
    """Files of history, in the order of positions, that are to become one file each; none where it is few. Pure.

    A quarter of the target is large enough, and each size below it is an eighth of the next one. Neighbours become one
    where that makes a file of a larger size than any of them. So a row is written again at most once for each size: at
    most 1 + log8(a quarter of the target / its first file) times, however often this is done.
    """
    found: list[list[LakeFile]] = []
    waiting, enough = [list(history)], target_file_bytes // 4
    while waiting and enough > 0:
        runs = [run for files in waiting for run in _below(files, enough)]
        groups = [group for run in runs for group in in_groups(run, target_file_bytes)]
        found += [group for group in groups if size_of(group) >= enough]
        waiting = [group for group in groups if size_of(group) < enough]
        enough //= MANY
    return found if sum(map(len, found)) >= MANY else []


def write(
    packs: Iterable[Sequence[LakeFile]], schema: Schema, location: str, io: FileIO, bloom: Sequence[str] = ()
) -> list[WrittenFile]:
    """A file for each pack, its row groups copied where they are large enough. bloom: as in `data_files.write`."""
    written: list[WrittenFile] = []
    with tempfile.TemporaryDirectory(prefix="headrace-pack-") as folder:
        local = LocalFiles(io, Path(folder))
        for pack in packs:
            names = paths_of(pack)
            paths = local.of(names)
            file = None
            if _large_groups(paths):
                file = data_files.concatenate(paths, schema=schema, location=location, tier="history", io=io)
            if file is None:
                arrow = file_rows.schema_of(data_files.arrow_schema(schema), paths)
                rows = chain.from_iterable(file_rows.rows(path, arrow, BATCH_ROWS) for path in paths)
                file = data_files.write(rows, schema=schema, location=location, tier="history", io=io, bloom=bloom)
            written += [file] if file is not None else []
            local.drop(names)
    return written


def _large_groups(paths: Sequence[Path]) -> bool:
    """Whether what the files' footers say is little beside their rows."""
    said: int = sum(pq.read_metadata(path).serialized_size for path in paths)
    return said * _LITTLE <= sum(path.stat().st_size for path in paths)


def _below(files: Sequence[LakeFile], size: int) -> list[list[LakeFile]]:
    """The runs of neighbours that are smaller."""
    return [list(run) for small, run in groupby(files, lambda file: file.size < size) if small]
