"""EventBridge Scheduler: schedules that really fire, at a rate, by cron, or once.

A rate without a start date fires at once and then every period, as the service documents. A minute of a rate may be
made shorter; cron and at expressions keep to the clock.
"""

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .roles import RoleError
from .workflows import Workflows

_LOOK_SECONDS = 0.5
_MINUTES = {"minute": 1, "hour": 60, "day": 1440}

logger = logging.getLogger("localaws.schedules")

Key = tuple[str, str, str]  # account, region, group/name


@dataclass(frozen=True, slots=True)
class Firing:
    """When a schedule was created, and when it fired last, if it did since this server started."""

    created: float
    last: float | None


def rate_seconds(expression: str, seconds_per_minute: float) -> float | None:
    """The period of a rate(...) expression; None for another kind."""
    matched = re.fullmatch(r"rate\((\d+)\s+(minute|hour|day)s?\)", expression.strip())
    return int(matched[1]) * _MINUTES[matched[2]] * seconds_per_minute if matched else None


def rate_is_due(firing: Firing, start: float | None, period: float, server_started: float, now: float) -> bool:
    """Whether a rate fires now: at its start date (or creation), then every period.

    A schedule that an earlier server has fired goes on at its period; it does not fire anew at a restart.
    """
    anchor = max(firing.created, start or 0.0)
    if firing.last is not None:
        return now - firing.last >= period
    if anchor >= server_started:
        return now >= anchor
    periods = int((server_started - anchor) // period) + 1
    return now >= anchor + periods * period


class Schedules:
    """Looks at ministack's schedules and fires those that are due."""

    def __init__(self, workflows: Workflows, clock: Callable[[], float], seconds_per_minute: float) -> None:
        self._workflows = workflows
        self._clock = clock
        self._seconds_per_minute = seconds_per_minute
        self._started = clock()
        self._firings: dict[Key, Firing] = {}
        self._closing = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="schedules", daemon=True).start()

    def close(self) -> None:
        self._closing.set()

    def _run(self) -> None:
        while not self._closing.wait(_LOOK_SECONDS):
            try:
                self.look()
            except Exception:
                logger.exception("looking at the schedules failed")

    def look(self) -> None:
        """Fire every schedule that is due now."""
        from ministack.services import scheduler

        now = self._clock()
        for key, schedule in list(scheduler._schedules._data.items()):
            if schedule.get("State") != "ENABLED" or not self._is_due(key, schedule, now):
                continue
            self._firings[key] = Firing(schedule["CreationDate"], now)
            threading.Thread(target=self._fire, args=(key, schedule), name="schedule", daemon=True).start()
            if schedule["ScheduleExpression"].startswith("at(") and schedule.get("ActionAfterCompletion") == "DELETE":
                scheduler._schedules._data.pop(key, None)

    def _is_due(self, key: Key, schedule: Mapping[str, Any], now: float) -> bool:
        from ministack.services import eventbridge, scheduler

        firing = self._firings.get(key)
        if firing is None or firing.created != schedule["CreationDate"]:
            firing = Firing(schedule["CreationDate"], None)
        start, end = scheduler._to_epoch(schedule.get("StartDate")), scheduler._to_epoch(schedule.get("EndDate"))
        if (start is not None and now < start) or (end is not None and now > end):
            return False
        expression = schedule["ScheduleExpression"]
        if (period := rate_seconds(expression, self._seconds_per_minute)) is not None:
            return rate_is_due(firing, start, period, self._started, now)
        if (moment := scheduler._at_time_epoch(expression)) is not None:
            return firing.last is None and now >= moment > self._started
        if (fields := eventbridge._parse_cron_fields(expression)) is None:
            return False
        since = datetime.fromtimestamp(firing.last or max(firing.created, self._started), tz=UTC)
        following = eventbridge._cron_next_fire(fields, since)
        return following is not None and datetime.fromtimestamp(now, tz=UTC) >= following

    def _fire(self, key: Key, schedule: Mapping[str, Any]) -> None:
        """Call the target as its role; a failure is logged, as the service drops what it cannot deliver."""
        from ministack.core import responses

        responses.set_request_account_id(key[0])
        responses.set_request_region(key[1])
        try:
            self._deliver(schedule)
        except RoleError as error:
            logger.error("schedule %s did not fire: %s", key[2], error)
        except Exception as error:
            logger.error("schedule %s did not fire: %s", key[2], error)

    def _deliver(self, schedule: Mapping[str, Any]) -> None:
        from ministack.services import eventbridge

        target = schedule["Target"]
        arn, given = str(target["Arn"]), target.get("Input") or "{}"
        if ":states:" in arn and ":stateMachine:" in arn:
            client = self._workflows.client(target["RoleArn"], "sfn", "scheduler.amazonaws.com")
            client.start_execution(stateMachineArn=arn, input=given)
        elif arn.startswith("arn:aws:scheduler:::aws-sdk:"):
            service, _, action = arn.removeprefix("arn:aws:scheduler:::aws-sdk:").partition(":")
            client = self._workflows.client(target["RoleArn"], service, "scheduler.amazonaws.com")
            getattr(client, re.sub(r"(?<!^)(?=[A-Z])", "_", action).lower())(**json.loads(given))
        else:
            event = {"Source": "aws.scheduler", "DetailType": "Scheduled Event", "Detail": "{}", "Time": time.time()}
            eventbridge._invoke_target(target, event, schedule)


def install(schedules: Schedules, seconds_per_minute: float) -> None:
    """Let ours fire Scheduler's schedules, and make EventBridge's rules look as often and keep the same minute."""
    from ministack.services import eventbridge, scheduler

    parse_rate = eventbridge._parse_rate_seconds

    def scaled(expression: str) -> float | None:
        period = parse_rate(expression)
        return None if period is None else period * seconds_per_minute / 60

    scheduler.start_scheduler = schedules.start
    eventbridge._parse_rate_seconds = scaled
    eventbridge._SCHEDULER_TICK_INTERVAL = _LOOK_SECONDS
