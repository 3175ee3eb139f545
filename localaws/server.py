"""The laptop's AWS as one ASGI server on loopback: ministack's services, with ours in front of its seams."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import orjson

from . import iam_control, object_ages
from .iam_judge import Judge
from .settings import ACCOUNT, REGION, Settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_CONTROL = "/_local/"


def environment(settings: Settings) -> dict[str, str]:
    """What ministack reads from the environment when it is imported."""
    state = settings.state_folder / "services"
    return {
        "GATEWAY_PORT": str(settings.port),
        "MINISTACK_HOST": "127.0.0.1",
        "MINISTACK_ACCOUNT_ID": ACCOUNT,
        "MINISTACK_REGION": REGION,
        "AUTH": "true" if settings.auth else "false",
        "PERSIST_STATE": "1",
        "S3_PERSIST": "1",
        "STATE_DIR": str(state),
        "S3_DATA_DIR": str(settings.state_folder / "s3"),
        "LOG_LEVEL": settings.log_level,
        # Nothing but the one port is opened, and no daemon is looked for.
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "DOCKER_HOST": "unix:///nonexistent/docker.sock",
        "AWS_ENDPOINT_URL": settings.endpoint,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


class LocalAws:
    """Our services put in place of ministack's, and the control endpoints under /_local/."""

    def __init__(self, settings: Settings, inherited: Mapping[str, str]) -> None:
        from ministack import app as ministack
        from ministack.core import responses

        from . import (
            alarms,
            cloudformation,
            codebuild,
            deliveries,
            functions,
            glue_connections,
            glue_jobs,
            iam_deployment,
            iam_judge,
            network,
            object_ranges,
            roles_anywhere,
            schedules,
            vpn,
            workflows,
        )
        from .kinesis import KinesisEndpoint

        self._ministack = ministack.app
        self._kinesis = KinesisEndpoint(
            settings.state_folder / "kinesis", time.time, enforce_limits=settings.enforce_kinesis_limits
        )
        self._judge = Judge(self._kinesis.key_of)
        iam_judge.install(self._judge)
        deliveries.install(deliveries.Deliveries(self._judge.decisions))
        self._jobs = glue_jobs.GlueJobs(settings, inherited, time.time, self._judge.role_may)
        glue_jobs.install(self._jobs)
        self._builds = codebuild.Builds(settings, inherited, time.time)
        codebuild.install(self._builds)
        cloudformation.install()
        tasks = workflows.Workflows(settings)
        workflows.install(tasks)
        functions.install(self._judge.role_may)
        object_ranges.install()
        alarms.install()
        vpn.install()
        network.install()
        glue_connections.install()
        agents = roles_anywhere.RolesAnywhere(settings.state_folder / "roles_anywhere.json")
        roles_anywhere.install(agents)
        iam_deployment.install(agents.answer)
        self._schedules = schedules.Schedules(tasks, time.time, settings.seconds_per_minute)
        schedules.install(self._schedules, settings.seconds_per_minute)

        async def kinesis(
            method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, Any]
        ) -> tuple[int, dict[str, str], bytes]:
            account, region = responses.get_account_id(), responses.get_region()
            return await self._kinesis.handle(headers, body, account, region)

        ministack.SERVICE_HANDLERS["kinesis"] = kinesis
        self._athena = LazyAthena(settings, self._judge)
        ministack.SERVICE_HANDLERS["athena"] = self._athena.handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(_CONTROL):
            await self._control(scope, receive, send)
        else:
            await self._ministack(scope, receive, send)

    async def _control(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix(_CONTROL)
        body = await _body(receive)
        if path == "health":
            status, headers, reply = (
                200,
                {"Content-Type": "application/json"},
                orjson.dumps({"status": "ok", "pid": os.getpid()}),
            )
        elif path.startswith("iam/"):
            status, headers, reply = iam_control.answer(self._judge, scope["method"], path.removeprefix("iam/"), body)
        elif path.startswith("kinesis/"):
            status, headers, reply = self._kinesis.control(scope["method"], path.removeprefix("kinesis/"), body)
        elif path.startswith("s3/"):
            status, headers, reply = object_ages.answer(scope["method"], path.removeprefix("s3/"), body)
        else:
            status, headers, reply = 404, {"Content-Type": "application/json"}, b'{"message": "no such control"}'
        lines = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        lines.append((b"content-length", str(len(reply)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": lines})
        await send({"type": "http.response.body", "body": reply})

    def end_children(self) -> None:
        """End every process that was started here. They may still call the server, so it must be answering."""
        from ministack.core import lambda_runtime

        self._schedules.close()
        self._jobs.close()
        self._builds.close()
        lambda_runtime.reset()

    def close(self) -> None:
        self._athena.close()
        self._kinesis.close()


class LazyAthena:
    """Athena, loaded by its first request: the engine's libraries would double the time that a start takes."""

    def __init__(self, settings: Settings, permissions: Judge) -> None:
        self._permissions = permissions
        self._spill_folder = settings.state_folder / "athena"
        self._loading = asyncio.Lock()
        self._service: Any = None

    async def handle(
        self, method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, Any]
    ) -> tuple[int, dict[str, str], bytes]:
        from ministack.services import athena

        async with self._loading:
            if self._service is None:
                self._service = await asyncio.to_thread(self._load)
        answer: tuple[int, dict[str, str], bytes] = await athena.handle_request(method, path, headers, body, query)
        return answer

    def _load(self) -> Any:
        from ministack.services import athena as ministack_athena

        from . import athena

        self._spill_folder.mkdir(exist_ok=True)
        return athena.install(
            ministack_athena, athena.AthenaSettings(spill_folder=self._spill_folder), self._permissions
        )

    def close(self) -> None:
        if self._service is not None:
            self._service.close()


async def _body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def _serve(application: LocalAws, settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; prints one line when the port answers."""
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    told, stopping = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    config = Config()
    config.bind = [f"127.0.0.1:{settings.port}"]
    config.accesslog = None
    config.errorlog = "-"
    config.loglevel = settings.log_level
    config.graceful_timeout = 1.0
    config.shutdown_timeout = 60.0
    config.keep_alive_timeout = 300.0
    config.keep_alive_max_requests = 10**9
    serving = asyncio.create_task(serve(application, config, shutdown_trigger=stopping.wait))  # type: ignore[arg-type]
    announcing = asyncio.create_task(_announce(settings))
    waiting = asyncio.create_task(told.wait())
    await asyncio.wait([waiting, serving], return_when=asyncio.FIRST_COMPLETED)
    announcing.cancel()
    waiting.cancel()
    if not serving.done():  # what ends may still call the server
        await asyncio.to_thread(application.end_children)
        stopping.set()
    await serving


async def _announce(settings: Settings) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", settings.port)
        except OSError:
            await asyncio.sleep(0.02)
            continue
        writer.close()
        print(f"The laptop's AWS answers at {settings.endpoint}, its state is in {settings.state_folder}", flush=True)
        return


def run(settings: Settings) -> None:
    """Run the server in this process until it is told to stop."""
    settings.state_folder.mkdir(parents=True, exist_ok=True)
    (settings.state_folder / "services").mkdir(exist_ok=True)
    inherited = dict(os.environ)
    os.environ.update(environment(settings))
    application = LocalAws(settings, inherited)
    try:
        asyncio.run(_serve(application, settings))
    finally:
        application.close()
