"""AWS as the agent reaches it: its clients, and what means that AWS did not answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from producer.kinesis import Unanswered, write_records_ourselves
from producer.settings import AwsSettings, Settings


@dataclass(frozen=True)
class Clouds:
    """The agent's AWS clients. `kinesis` does not retry by itself: the sender does, in order."""

    kinesis: Any
    kinesis_admin: Any
    dynamodb: Any
    s3: Any

    @classmethod
    def of(cls, settings: Settings) -> Clouds:
        aws = settings.aws
        return cls(
            kinesis=client("kinesis", aws, retries=False),
            kinesis_admin=client("kinesis", aws),
            dynamodb=client("dynamodb", aws),
            s3=client("s3", aws),
        )


def client(service: str, settings: AwsSettings, *, retries: bool = True) -> Any:
    """A boto3 client with sane timeouts; without `retries`, each call is one request.

    Credentials come from the profile, or as boto3 finds them: the environment, a credential_process such as IAM Roles
    Anywhere's helper, the machine's role. Those that say when they expire are renewed before.
    """
    config = Config(
        retries={"mode": "standard", "max_attempts": 4 if retries else 1},
        connect_timeout=5,
        read_timeout=15,
        tcp_keepalive=True,
        max_pool_connections=4,
        proxies={"http": settings.proxy, "https": settings.proxy} if settings.proxy else None,
        client_cert=settings.client_certificate,
    )
    made = boto3.Session(profile_name=settings.profile).client(
        service,
        region_name=settings.region,
        endpoint_url=settings.endpoint(service),
        verify=settings.ca_bundle,
        config=config,
    )
    if service == "kinesis":
        write_records_ourselves(made)
    return made


_NOT_NOW: Final = {
    "ExpiredToken",
    "ExpiredTokenException",
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestExpired",
    "RequestLimitExceeded",
    "RequestTimeout",
    "RequestTimeTooSkewed",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
}


def unreachable(error: Exception) -> bool:
    """Whether AWS did not answer, or not now: throttled, or before credentials were renewed. A refusal is not that."""
    if isinstance(error, Unanswered | BotoCoreError | OSError):
        return True
    if not isinstance(error, ClientError):
        return False
    return error.response["Error"]["Code"] in _NOT_NOW or error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500
