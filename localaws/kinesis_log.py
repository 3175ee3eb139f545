"""One shard's records on disk: append-only segments, each a data file and an index file.

The data file holds partition key and data of every record, end to end; the index four 64-bit integers a record:
counter, arrival in milliseconds, end offset in the data file, length of the partition key. Records stay on disk; only
the index (32 bytes a record) is in memory. The index is written after the data, so an index entry without its data is
the mark of a torn write, and is dropped when the log is opened.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

SEGMENT_BYTES = 64 * 2**20
_ENTRY = 4
_COUNTER, _ARRIVAL, _END, _KEY = range(_ENTRY)


@dataclass(frozen=True, slots=True)
class Record:
    """One stored record. `counter` orders the records of a stream; `data` is kept as it is given."""

    counter: int
    arrival_millis: int
    partition_key: bytes
    data: bytes

    @property
    def size(self) -> int:
        return len(self.partition_key) + len(self.data)


class Segment:
    """A run of records, in memory only as its index."""

    def __init__(self, path: Path) -> None:
        self._data_path = path.with_suffix(".data")
        self._index_path = path.with_suffix(".index")
        self._index: array[int] = array("q")
        self._data: BinaryIO = self._data_path.open("a+b", buffering=0)
        self._index_file: BinaryIO = self._index_path.open("a+b", buffering=0)
        self._load()

    def _load(self) -> None:
        """Read the index, and cut both files back to the last whole record."""
        raw = self._index_path.read_bytes()
        entry_bytes = _ENTRY * self._index.itemsize
        self._index.frombytes(raw[: len(raw) // entry_bytes * entry_bytes])
        size = self._data_path.stat().st_size
        while self._index and self._index[-_ENTRY + _END] > size:
            del self._index[-_ENTRY:]
        self._index_file.truncate(len(self._index) * self._index.itemsize)
        self._data.truncate(self.byte_count)

    def __len__(self) -> int:
        return len(self._index) // _ENTRY

    @property
    def byte_count(self) -> int:
        return self._index[-_ENTRY + _END] if self._index else 0

    @property
    def last_counter(self) -> int:
        return self._index[-_ENTRY + _COUNTER] if self._index else -1

    @property
    def last_arrival_millis(self) -> int:
        return self._index[-_ENTRY + _ARRIVAL] if self._index else -1

    def counter(self, at: int) -> int:
        return self._index[at * _ENTRY + _COUNTER]

    def arrival_millis(self, at: int) -> int:
        return self._index[at * _ENTRY + _ARRIVAL]

    def append(self, records: Sequence[Record]) -> None:
        entries: array[int] = array("q")
        end = self.byte_count
        parts: list[bytes] = []
        for record in records:
            end += record.size
            entries.extend((record.counter, record.arrival_millis, end, len(record.partition_key)))
            parts += (record.partition_key, record.data)
        _write_all(self._data, b"".join(parts))
        _write_all(self._index_file, entries.tobytes())
        self._index.extend(entries)

    def read(self, at: int) -> Record:
        start = self._index[(at - 1) * _ENTRY + _END] if at else 0
        entry = self._index[at * _ENTRY : (at + 1) * _ENTRY]
        self._data.seek(start)
        raw = _read_exactly(self._data, entry[_END] - start)
        key_length = entry[_KEY]
        return Record(entry[_COUNTER], entry[_ARRIVAL], raw[:key_length], raw[key_length:])

    def first_at_or_after(self, counter: int) -> int:
        return bisect_left(range(len(self)), counter, key=self.counter)

    def first_arrived_at_or_after(self, millis: int) -> int:
        return bisect_left(range(len(self)), millis, key=self.arrival_millis)

    def close(self) -> None:
        self._data.close()
        self._index_file.close()

    def delete(self) -> None:
        self.close()
        self._data_path.unlink()
        self._index_path.unlink()


class ShardLog:
    """A shard's records in the order of their counters. Not safe for use by several threads at once."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        names = sorted(path.stem for path in folder.glob("*.data"))
        self._segments = [Segment(folder / name) for name in names]
        self._trimmed_millis = 0

    @property
    def last_counter(self) -> int:
        """The newest record's counter, -1 when the shard holds none."""
        return max((segment.last_counter for segment in self._segments), default=-1)

    def append(self, records: Sequence[Record]) -> None:
        """Store records whose counters and arrivals follow all the stored ones."""
        if not self._segments or self._segments[-1].byte_count >= SEGMENT_BYTES:
            self._segments.append(Segment(self._folder / f"{records[0].counter:020d}"))
        self._segments[-1].append(records)

    def read_from(self, counter: int) -> Iterator[Record]:
        """Untrimmed records with at least this counter, oldest first."""
        for segment in self._segments:
            if segment.last_counter < counter or segment.last_arrival_millis < self._trimmed_millis:
                continue
            first = max(segment.first_at_or_after(counter), segment.first_arrived_at_or_after(self._trimmed_millis))
            for at in range(first, len(segment)):
                yield segment.read(at)

    def oldest_arrival_from(self, counter: int) -> int | None:
        """When the first untrimmed record with at least this counter arrived (milliseconds)."""
        for segment in self._segments:
            if segment.last_counter < counter or segment.last_arrival_millis < self._trimmed_millis:
                continue
            first = max(segment.first_at_or_after(counter), segment.first_arrived_at_or_after(self._trimmed_millis))
            if first < len(segment):
                return segment.arrival_millis(first)
        return None

    def counter_at(self, millis: int) -> int | None:
        """The counter of the first record that arrived at this time or later; None if there is none."""
        for segment in self._segments:
            if segment.last_arrival_millis >= millis:
                return segment.counter(segment.first_arrived_at_or_after(millis))
        return None

    def trim(self, before_millis: int) -> None:
        """Forget the records that arrived earlier; whole segments leave the disk."""
        self._trimmed_millis = max(self._trimmed_millis, before_millis)
        while self._segments and self._segments[0].last_arrival_millis < self._trimmed_millis:
            self._segments.pop(0).delete()

    def close(self) -> None:
        for segment in self._segments:
            segment.close()

    def delete(self) -> None:
        for segment in self._segments:
            segment.delete()
        self._segments.clear()
        self._folder.rmdir()


def _write_all(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _read_exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    while len(data) < size:
        more = file.read(size - len(data))
        if not more:
            raise OSError(f"the record's data ends after {len(data)} of {size} bytes in {file.name}")
        data += more
    return data
