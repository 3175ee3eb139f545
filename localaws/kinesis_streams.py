"""Streams and where they are kept: a folder per stream with `stream.json` and a record log per shard."""

import json
import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from .kinesis_errors import KinesisError, not_found
from .kinesis_limits import ShardLimits
from .kinesis_log import ShardLog
from .kinesis_shards import Shard, ShardMap

MILLIS_PER_HOUR = 3_600_000


@dataclass(frozen=True, slots=True)
class StreamState:
    """All that a stream is apart from its records."""

    account: str
    region: str
    name: str
    created_millis: int
    shards: tuple[Shard, ...]
    next_shard_number: int
    mode: str = "PROVISIONED"
    retention_hours: int = 24
    max_record_kib: int = 1024
    distribution: str = "USER_PARTITION_KEY"
    key_id: str | None = None  # set while the stream is encrypted
    metrics: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def arn(self) -> str:
        return f"arn:aws:kinesis:{self.region}:{self.account}:stream/{self.name}"

    @property
    def encryption(self) -> str:
        return "KMS" if self.key_id else "NONE"

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, raw: bytes) -> "StreamState":
        values = json.loads(raw)
        shards = tuple(Shard(**{**shard, "parents": tuple(shard["parents"])}) for shard in values.pop("shards"))
        return cls(**{**values, "shards": shards, "metrics": tuple(values["metrics"])})


class Stream:
    """One stream with its records. Not safe for use by several threads at once."""

    def __init__(self, folder: Path, state: StreamState) -> None:
        self._folder = folder
        self.state = state
        self.map = ShardMap(state.shards)
        self.logs = {shard.number: ShardLog(folder / shard.id) for shard in state.shards}
        self.limits = {shard.number: ShardLimits() for shard in state.shards}
        used = [log.last_counter for log in self.logs.values()]
        bounds = [max(s.first_counter, s.closed_counter or 0) for s in state.shards]
        self._counter = max((*used, *bounds), default=0)

    def change(self, **changes: object) -> None:
        """Replace parts of the state, on disk first."""
        state = replace(self.state, **changes)  # type: ignore[arg-type]
        _write_atomically(self._folder / "stream.json", state.to_json())
        self.state = state

    def next_counter(self, now: float) -> int:
        """A number above every one given before, near the time in microseconds: it outlives a lost log tail."""
        self._counter = max(self._counter + 1, int(now * 1_000_000))
        return self._counter

    def shard(self, shard_id: str) -> Shard:
        found = self.map.find(shard_id)
        if found is None:
            raise not_found(
                f"Shard {shard_id} in stream {self.state.name} under account {self.state.account} does not exist"
            )
        return found

    def reshape(self, shards: ShardMap) -> None:
        """Take over new shards; those that are gone leave the disk."""
        added = {shard.number for shard in shards.shards} - set(self.logs)
        self.change(shards=shards.shards, next_shard_number=self.state.next_shard_number + len(added))
        self.map = shards
        kept = {shard.number for shard in shards.shards}
        for shard in shards.shards:
            if shard.number in added:
                self.logs[shard.number] = ShardLog(self._folder / shard.id)
                self.limits[shard.number] = ShardLimits()
        for number in set(self.logs) - kept:
            self.logs.pop(number).delete()
            del self.limits[number]

    def apply_retention(self, now: float) -> None:
        before_millis = int(now * 1000) - self.state.retention_hours * MILLIS_PER_HOUR
        for log in self.logs.values():
            log.trim(before_millis)
        shards = self.map.without_expired(before_millis)
        if shards is not self.map:
            self.reshape(shards)

    def close(self) -> None:
        for log in self.logs.values():
            log.close()

    def delete(self) -> None:
        self.close()
        shutil.rmtree(self._folder)


class Streams:
    """Every stream under a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._streams: dict[tuple[str, str, str], Stream] = {}
        for path in sorted(folder.glob("*/*/*/stream.json")):
            state = StreamState.from_json(path.read_bytes())
            self._streams[state.account, state.region, state.name] = Stream(path.parent, state)

    def create(self, state: StreamState) -> Stream:
        key = (state.account, state.region, state.name)
        if key in self._streams:
            raise KinesisError(
                "ResourceInUseException", f"Stream {state.name} under account {state.account} already exists."
            )
        folder = self._folder / state.account / state.region / state.name
        folder.mkdir(parents=True, exist_ok=True)
        _write_atomically(folder / "stream.json", state.to_json())
        self._streams[key] = Stream(folder, state)
        return self._streams[key]

    def get(self, account: str, region: str, name: str) -> Stream:
        try:
            return self._streams[account, region, name]
        except KeyError:
            raise not_found(f"Stream {name} under account {account} not found.") from None

    def delete(self, stream: Stream) -> None:
        state = stream.state
        del self._streams[state.account, state.region, state.name]
        stream.delete()

    def names(self, account: str, region: str) -> list[str]:
        return sorted(name for owner, where, name in self._streams if (owner, where) == (account, region))

    def close(self) -> None:
        for stream in self._streams.values():
            stream.close()


def _write_atomically(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_bytes(data)
    temporary.replace(path)
