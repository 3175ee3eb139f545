"""Settings of the streaming job: what Glue passes as arguments, and what DynamoDB holds for every batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from glue_streaming.errors import BadSettings

_REQUIRED: Final = ("source", "stream_name", "lake_bucket")


@dataclass(frozen=True)
class JobArguments:
    """Arguments of a run. Both jobs take them as Glue passes them: `--name value`.

    sources: the sources whose blocks the stream carries. mode: continuous, or drain (read everything, then stop).
    fold_horizon_seconds: how old a watermark must be before a fold may use it.
    """

    sources: tuple[str, ...]
    stream_name: str
    lake_bucket: str
    dynamodb_prefix: str = "headrace"
    job: str = "headrace-stream"
    mode: str = "continuous"
    checkpoint: str = ""
    fold_horizon_seconds: float = 300.0

    def dynamodb_table(self, name: str) -> str:
        return f"{self.dynamodb_prefix}-{name}"


def parse_arguments(argv: Sequence[str]) -> JobArguments:
    """The arguments behind the script's name. Raises BadSettings with every problem; unknown ones are Glue's own."""
    given = pairs(argv)
    problems = [f"--{name} is missing" for name in _REQUIRED if not given.get(name)]
    mode = given.get("mode", "continuous")
    if mode not in ("continuous", "drain"):
        problems.append(f"--mode: expected continuous or drain, got {mode}")
    horizon = _number(given.get("fold_horizon_seconds", "300"), "--fold_horizon_seconds", problems)
    if problems:
        raise BadSettings("; ".join(problems))
    return JobArguments(
        sources=tuple(name.strip() for name in given["source"].split(",") if name.strip()),
        stream_name=given["stream_name"],
        lake_bucket=given["lake_bucket"],
        dynamodb_prefix=given.get("dynamodb_prefix", "headrace"),
        job=given.get("job", "headrace-stream"),
        mode=mode,
        checkpoint=given.get("checkpoint", ""),
        fold_horizon_seconds=horizon,
    )


def pairs(argv: Sequence[str]) -> dict[str, str]:
    """`--name value` pairs; a name without a value is an empty one."""
    found: dict[str, str] = {}
    name = None
    for word in argv:
        if word.startswith("--") and name is None:
            name = word[2:]
        elif name is not None:
            found[name], name = word, None
    return found


@dataclass(frozen=True)
class BatchSettings:
    """Read from DynamoDB at every batch; each has the same name there.

    trigger_seconds: from the start of one batch to that of the next. bytes_per_shard, seconds_per_shard: a batch reads
    at most this from a shard. pause: read nothing. unknown_fingerprint_seconds: how long a block may wait for its
    schema. tip_seconds: how long a position that a progress record names may be missing before the lane is re-read.
    hole_deadline_seconds: how long a hole may stay open before its table leaves the cut, so that the others go on.
    snapshot_stall_seconds: how long nothing of a source's snapshots may come, while one of them has not ended, before
    it is given up and asked for again.
    """

    trigger_seconds: float = 1.0
    bytes_per_shard: int = 16 * 1024 * 1024
    seconds_per_shard: float = 10.0
    pause: bool = False
    unknown_fingerprint_seconds: float = 180.0
    tip_seconds: float = 20.0
    hole_deadline_seconds: float = 3_600.0
    snapshot_stall_seconds: float = 1_800.0


def batch_settings(items: Mapping[str, str], last_good: BatchSettings) -> tuple[BatchSettings, list[str]]:
    """The settings that the items hold, and what is wrong with them: a bad value leaves the last good one in place."""
    problems: list[str] = []
    good: dict[str, Any] = {}
    for field in fields(BatchSettings):
        if field.name not in items:
            continue
        value = items[field.name]
        if field.name == "pause":
            if value in ("true", "false"):
                good["pause"] = value == "true"
            else:
                problems.append(f"pause: expected true or false, got {value}")
            continue
        number = _number(value, field.name, problems)
        if number > 0:
            good[field.name] = int(number) if field.type == "int" else number
    return replace(last_good, **good), problems


def _number(value: str, name: str, problems: list[str]) -> float:
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if number <= 0:
        problems.append(f"{name}: expected a positive number, got {value}")
    return number
