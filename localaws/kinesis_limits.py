"""The rates that one shard allows, as leaking buckets that are told the time. Pure but for their own level."""

from .kinesis_errors import throttled

SHARD_WRITE_BYTES = 2**20
SHARD_WRITE_RECORDS = 1000
SHARD_READ_BYTES = 2 * 2**20
SHARD_READ_CALLS = 5


class Meter:
    """Allows `per_second` units; something larger than that passes an empty meter and is worked off afterwards."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._level = 0.0
        self._at = 0.0

    def has_room(self, amount: float, now: float) -> bool:
        self._level = max(0.0, self._level - (now - self._at) * self._per_second)
        self._at = now
        return self._level == 0.0 or self._level + amount <= self._per_second

    def add(self, amount: float) -> None:
        self._level += amount


class ShardLimits:
    """What one shard takes and gives a second: 1 MiB and 1,000 records in, 2 MiB and 5 calls out."""

    def __init__(self) -> None:
        self._write_bytes = Meter(SHARD_WRITE_BYTES)
        self._write_records = Meter(SHARD_WRITE_RECORDS)
        self._read_bytes = Meter(SHARD_READ_BYTES)
        self._read_calls = Meter(SHARD_READ_CALLS)
        self._unreadable_until = 0.0

    def write(self, size: int, now: float, where: str) -> None:
        """Count one record, or raise KinesisError when the shard has no room for it."""
        if not (self._write_bytes.has_room(size, now) and self._write_records.has_room(1, now)):
            raise throttled(f"Rate exceeded for {where}.")
        self._write_bytes.add(size)
        self._write_records.add(1)

    def read(self, now: float, where: str) -> None:
        """Count one call, or raise KinesisError when there were too many, or what they returned was too much."""
        waits = now < self._unreadable_until or not self._read_bytes.has_room(0, now)
        if waits or not self._read_calls.has_room(1, now):
            raise throttled(f"Rate exceeded for {where}.")
        self._read_calls.add(1)

    def returned(self, size: int, now: float) -> None:
        """Count what a call gave: after more than a second's worth, the shard is closed until it is worked off."""
        self._read_bytes.add(size)
        if size > SHARD_READ_BYTES:
            self._unreadable_until = now + size / SHARD_READ_BYTES
