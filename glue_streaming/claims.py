"""Payloads that travel beside their blocks, on S3, since a record could not hold them."""

from __future__ import annotations

import re
from typing import Any, Final

from botocore.exceptions import ClientError

from schemas.block import Block
from schemas.errors import MalformedBlock

MAX_PAYLOAD_BYTES: Final = 128 * 1024 * 1024

_PLACE: Final = re.compile(r"s3://(?P<bucket>[a-z0-9.-]{3,63})/(?P<key>.{1,1024})")
_ABSENT: Final = ("NoSuchKey", "NoSuchBucket", "AccessDenied", "403", "404")
"""S3 says AccessDenied of a key that is not there to who may not list the bucket."""


def payload(s3: Any, block: Block) -> bytes | None:
    """What the block claims; None where it carries its payload itself. Raises MalformedBlock where it is not there."""
    if block.claim is None:
        return None
    place = _PLACE.fullmatch(block.claim)
    if place is None:
        raise MalformedBlock(f"its claim is no place on S3: {block.claim[:200]!r}")
    try:
        found = s3.get_object(Bucket=place["bucket"], Key=place["key"])
    except ClientError as error:
        if error.response["Error"]["Code"] not in _ABSENT:
            raise
        raise MalformedBlock(f"its payload is not where the block claims it to be, at {block.claim}") from error
    if found["ContentLength"] > MAX_PAYLOAD_BYTES:
        raise MalformedBlock(f"the payload at {block.claim} has {found['ContentLength']} bytes")
    return bytes(found["Body"].read())
