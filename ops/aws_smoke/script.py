"""The order of a smoke run: apply, check, and destroy whatever happened before."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Generic, Protocol, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from ops.aws_smoke.report import Report, Result, Standing, not_reached
from ops.errors import OpsError

Tell = Callable[[str], None]
Scene = TypeVar("Scene")

ONLY_ON_AWS = "only on AWS"


class NotConfigured(Exception):
    """The check needs something that was not given; the message says what, and how to give it."""


class Infrastructure(Protocol):
    """What is applied and destroyed. `destroy` must be safe after an apply that failed in the middle."""

    def apply(self) -> None: ...
    def destroy(self) -> None: ...


@dataclass(frozen=True)
class Check(Generic[Scene]):
    """A claim and how it is proven: `prove` returns the evidence, or raises.

    after: checks without which this one makes no sense. only_on_aws: the laptop's AWS has nothing to ask.
    """

    name: str
    claim: str
    prove: Callable[[Scene], str]
    after: tuple[str, ...] = ()
    only_on_aws: bool = False


def run(
    deployment: str,
    infrastructure: Infrastructure,
    stage: Callable[[], Any],
    checks: Sequence[Check[Any]],
    rehearsal: bool,
    tell: Tell,
) -> Report:
    """Applies, enters the stage (a context manager that yields the scene), checks, destroys. Always destroys.

    Interrupts end the checks, and neither an apply before its state is written nor the destroying.
    """
    results: list[Result] = []
    problems: list[str] = []
    try:
        tell("applying")
        with deferred(tell):
            infrastructure.apply()
        with stage() as scene:
            for check in checks:
                tell(f"checking: {check.claim}")
                result = judge(check, scene, results, rehearsal)
                tell(f"  {result.standing}: {result.evidence}")
                results.append(result)
    except (OpsError, ClientError, BotoCoreError) as error:
        problems.append(f"stopped: {error}")
    except KeyboardInterrupt:
        problems.append("interrupted")
    finally:
        tell("destroying everything that was made")
        with uninterrupted(tell):
            try:
                infrastructure.destroy()
            except OpsError as error:
                problems.append(f"NOT DESTROYED, and it goes on costing: {error}")
    left = [(check.name, check.claim) for check in checks[len(results) :]]
    return Report(deployment, (*results, *not_reached(left, "the run ended before it")), tuple(problems))


def judge(check: Check[Scene], scene: Scene, earlier: Sequence[Result], rehearsal: bool) -> Result:
    """One check's result. An error of the check is its failure, and no reason to stop the others."""

    def result(standing: Standing, evidence: str) -> Result:
        return Result(check.name, check.claim, standing, evidence)

    if rehearsal and check.only_on_aws:
        return result(Standing.NOT_PROVEN, ONLY_ON_AWS)
    passed = {found.check for found in earlier if found.standing in (Standing.PROVEN, Standing.REHEARSED)}
    if missing := [name for name in check.after if name not in passed]:
        return result(Standing.NOT_PROVEN, f"needs what was not shown before: {', '.join(missing)}")
    try:
        evidence = check.prove(scene)
    except NotConfigured as error:
        return result(Standing.NOT_PROVEN, str(error))
    except (OpsError, ClientError, BotoCoreError) as error:
        return result(Standing.FAILED, str(error))
    return result(Standing.REHEARSED if rehearsal else Standing.PROVEN, evidence)


@contextmanager
def deferred(tell: Tell) -> Iterator[None]:
    """SIGINT and SIGTERM of the block are raised as one interrupt behind it: half an apply would be in no state.

    A terminal's Ctrl-C reaches Terraform as well, which stops in good order by itself.
    """
    heard: list[int] = []

    def hear(number: int, _frame: FrameType | None) -> None:
        heard.append(number)
        tell("stopping as soon as what was begun is written down")

    with _handled(hear):
        yield
    if heard:
        raise KeyboardInterrupt


@contextmanager
def uninterrupted(tell: Tell) -> Iterator[None]:
    """For the length of the block SIGINT and SIGTERM only say that they were heard."""

    def heard(_number: int, _frame: FrameType | None) -> None:
        tell("still destroying; what is left standing would go on costing")

    with _handled(heard):
        yield


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
