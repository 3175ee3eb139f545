"""Settings of the streaming job: what Glue passes as arguments, and what DynamoDB holds for every batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
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


def _setting(default: Any, low: float, high: float) -> Any:
    """A number with its bounds, both allowed."""
    return field(default=default, metadata={"low": low, "high": high})


@dataclass(frozen=True)
class BatchSettings:
    """Read from DynamoDB while the job runs; each has the same name there.

    trigger_seconds: the shortest time from the start of one batch to that of the next. freshness_seconds: the longest;
    a change waits at most so long where there is little to do. commit_bytes: what makes a commit to one table worth
    while, in bytes of records as they travel; the trigger stretches until a batch has so much for each.
    bytes_per_shard, seconds_per_shard: a batch reads at most this from a shard. pause: read nothing.
    unknown_fingerprint_seconds: how long a block may wait for its schema. tip_seconds: how long a position that a
    progress record names may be missing before the lane is re-read.
    hole_deadline_seconds: how long a hole may stay open before its table leaves the cut, so that the others go on.
    snapshot_stall_seconds: how long nothing of a source's snapshots may come, while one of them has not ended, before
    it is given up and asked for again.
    """

    trigger_seconds: float = _setting(1.0, 0.1, 3_600)
    freshness_seconds: float = _setting(10.0, 0.1, 86_400)
    commit_bytes: int = _setting(1024 * 1024, 1, 1024**3)
    bytes_per_shard: int = _setting(16 * 1024 * 1024, 1, 256 * 1024 * 1024)
    seconds_per_shard: float = _setting(10.0, 0.1, 600)
    pause: bool = False
    unknown_fingerprint_seconds: float = _setting(180.0, 0.1, 86_400)
    tip_seconds: float = _setting(20.0, 0.1, 86_400)
    hole_deadline_seconds: float = _setting(3_600.0, 0.1, 30 * 86_400)
    snapshot_stall_seconds: float = _setting(1_800.0, 0.1, 7 * 86_400)


def batch_settings(items: Mapping[str, str], last_good: BatchSettings) -> tuple[BatchSettings, list[str]]:
    """The settings that the items hold, and what is wrong with them.

    One that is not there has its default; a bad one keeps its last good value.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    for setting in fields(BatchSettings):
        if setting.name not in items:
            continue
        value, problem = _parsed(setting, items[setting.name])
        if problem:
            problems.append(problem)
            values[setting.name] = getattr(last_good, setting.name)
        else:
            values[setting.name] = value
    return BatchSettings(**values), problems


def _parsed(setting: Any, text: str) -> tuple[Any, str | None]:
    """The value, or why there is none."""
    if setting.type == "bool":
        return text == "true", None if text in (
            "true",
            "false",
        ) else f"{setting.name}: expected true or false, got {text}"
    low, high = setting.metadata["low"], setting.metadata["high"]
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not low <= number <= high:
        return None, f"{setting.name}: expected a number from {low:g} to {high:g}, got {text}"
    return (int(number) if setting.type == "int" else number), None


def _number(value: str, name: str, problems: list[str]) -> float:
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if number <= 0:
        problems.append(f"{name}: expected a positive number, got {value}")
    return number
