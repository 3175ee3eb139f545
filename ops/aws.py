"""boto3 clients of one AWS: the laptop's by its endpoint, or the account that the environment names."""

from __future__ import annotations

from functools import cache
from typing import Any

import boto3

from localaws.settings import ADMIN_ACCESS_KEY, ADMIN_SECRET_KEY, REGION


class Aws:
    """Clients, made once each."""

    def __init__(self, endpoint: str | None) -> None:
        self.endpoint = endpoint
        self.client = cache(self._client)

    def environment(self) -> dict[str, str]:
        """What a child process needs to use the same AWS."""
        if self.endpoint is None:
            return {}
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ADMIN_ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": ADMIN_SECRET_KEY,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def _client(self, service: str) -> Any:
        if self.endpoint is None:
            return boto3.client(service)
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=ADMIN_ACCESS_KEY,
            aws_secret_access_key=ADMIN_SECRET_KEY,
        )
