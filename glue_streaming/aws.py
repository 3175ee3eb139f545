"""Clients, the Iceberg catalog and file access, made once from the environment.

boto3 reads AWS_ENDPOINT_URL, region and credentials by itself; PyIceberg and its S3 access are given the same ones.
"""

from __future__ import annotations

import os
from collections import Counter
from functools import cached_property, partial
from typing import Any, Final

import boto3
from botocore.config import Config
from pyiceberg.io import FileIO

from glue_streaming.lake_catalog import LakeCatalog
from glue_streaming.lake_io import LakeIO

_PATIENT: Final = Config(retries={"mode": "standard", "total_max_attempts": 10}, max_pool_connections=32)
"""A throttled request waits and is made again, up to about a minute and a half: a slow commit beats a failed one."""
_BRIEF: Final = Config(retries={"mode": "standard", "total_max_attempts": 4}, max_pool_connections=32)
"""A throttled shard must not hold up its batch: what waits longer than seconds_per_shard is read by the next one."""


class Aws:
    """The AWS of this process. Clients of boto3 are thread-safe and shared."""

    def __init__(self, endpoint: str | None = None, region: str | None = None) -> None:
        self.endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL")
        self.region = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        self._clients: dict[str, Any] = {}
        self.throttled: Counter[str] = Counter()
        """By service: requests that had to be made again."""

    def client(self, service: str) -> Any:
        if service not in self._clients:
            config = _BRIEF if service == "kinesis" else _PATIENT
            self._clients[service] = boto3.client(
                service, endpoint_url=self.endpoint, region_name=self.region, config=config
            )
            self._clients[service].meta.events.register("after-call", partial(self._count_retries, service))
        return self._clients[service]

    def _count_retries(self, service: str, parsed: dict[str, Any], **_: Any) -> None:
        self.throttled[service] += parsed.get("ResponseMetadata", {}).get("RetryAttempts", 0)

    @cached_property
    def io(self) -> FileIO:
        return LakeIO(self._s3_options())

    @cached_property
    def catalog(self) -> LakeCatalog:
        return LakeCatalog("lake", self.client("glue"), self.io)

    def _s3_options(self) -> dict[str, Any]:
        """Arrow's names. Without an endpoint (on AWS) its S3 access finds role credentials by itself.

        Its own timeout is three seconds without a byte, which a busy machine exceeds: a batch would fail for nothing.
        """
        options: dict[str, Any] = {"region": self.region, "connect_timeout": 10, "request_timeout": 60}
        if self.endpoint:
            credentials = boto3.Session().get_credentials()
            frozen = credentials.get_frozen_credentials() if credentials else None
            options["endpoint_override"] = self.endpoint
            if frozen is not None:
                options["access_key"], options["secret_key"] = frozen.access_key, frozen.secret_key
                options["session_token"] = frozen.token
        return options
