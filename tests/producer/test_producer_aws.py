"""Calls to AWS: through what the settings say, with credentials that are renewed, and when to wait for it."""

from __future__ import annotations

import json
import random
import sys

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.credentials import Credentials
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from producer.clouds import client, unreachable
from producer.kinesis import KinesisStream, Record
from producer.settings import AwsSettings

PROCESS = """
import datetime, json, pathlib, sys
calls = pathlib.Path(sys.argv[1])
calls.write_text(calls.read_text() + "x" if calls.exists() else "x")
until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=5)
print(json.dumps({"Version": 1, "AccessKeyId": "KEY" + calls.read_text(), "SecretAccessKey": "s", "SessionToken": "t",
                  "Expiration": until.isoformat()}))
"""


@pytest.fixture
def no_credentials(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


def test_a_profiles_credentials_are_renewed_before_they_expire(no_credentials, tmp_path):
    """A credential_process, as IAM Roles Anywhere's helper is one, runs again when its answer is about to run out."""
    (tmp_path / "process.py").write_text(PROCESS)
    process = f"{sys.executable} {tmp_path}/process.py {tmp_path}/calls"
    (tmp_path / "config").write_text(f"[profile site]\ncredential_process = {process}\n")
    kinesis = client("kinesis", AwsSettings(region="eu-west-1", profile="site"))
    signed = []

    def answer(request, **_):
        signed.append(request.headers["Authorization"].decode())
        response = AWSResponse(request.url, 200, {}, None)
        response._content = b'{"Records": [{"ShardId": "0"}]}'
        return response

    kinesis.meta.events.register("before-send.kinesis.*", answer)
    for _ in range(2):
        KinesisStream(kinesis, "s").put([Record(b"data", "p", "0")])
    keys = [text.partition("Credential=")[2].partition("/")[0] for text in signed]
    assert len(set(keys)) == 2
    assert all(key.startswith("KEYx") for key in keys)


def test_a_client_goes_where_the_settings_say(no_credentials, tmp_path):
    settings = AwsSettings(
        region="eu-west-1",
        endpoint_url="https://vpce.example",
        proxy="http://proxy.site:3128",
        ca_bundle=f"{tmp_path}/ca.pem",
        client_certificate=f"{tmp_path}/agent.pem",
    )
    kinesis = client("kinesis", settings, retries=False)
    session = kinesis._endpoint.http_session
    assert kinesis.meta.endpoint_url == "https://vpce.example"
    assert session._proxy_config.proxy_url_for("https://vpce.example") == "http://proxy.site:3128"
    assert (session._verify, session._cert_file) == (f"{tmp_path}/ca.pem", f"{tmp_path}/agent.pem")


def _sent(kinesis, records):
    """The request that a client makes of the records."""
    requests = []

    def answer(request, **_):
        requests.append(request)
        response = AWSResponse(request.url, 200, {}, None)
        response._content = json.dumps({"Records": [{"ShardId": "0"}] * len(records)}).encode()
        return response

    kinesis.meta.events.register("before-send.kinesis.*", answer)
    assert len(KinesisStream(kinesis, "s").put(records)) == len(records)
    return requests[0]


@pytest.mark.parametrize("sizes", [[0], [1, 2, 3], [400_000, 0, 70]])
def test_put_records_are_written_as_botocore_writes_them(monkeypatch, sizes):
    """Byte for byte, whatever the keys hold; and what is signed is what is sent."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    dice = random.Random(7)
    records = [Record(dice.randbytes(size), 'ü"[]\\ %b', str(2**127)) for size in sizes]
    sent = _sent(client("kinesis", AwsSettings(region="eu-west-1")), records)
    assert sent.body == _sent(boto3.client("kinesis", region_name="eu-west-1"), records).body
    assert int(sent.headers["Content-Length"]) == len(sent.body)
    signed = {name: sent.headers[name].decode() for name in ("X-Amz-Target", "Content-Type", "X-Amz-Date")}
    again = AWSRequest("POST", sent.url, signed, sent.body)
    again.context["timestamp"] = signed["X-Amz-Date"]
    signer = SigV4Auth(Credentials("a", "b"), "kinesis", "eu-west-1")
    signature = signer.signature(signer.string_to_sign(again, signer.canonical_request(again)), again)
    assert sent.headers["Authorization"].decode().endswith(f"Signature={signature}")


def _refusal(code: str, status: int = 400) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "UpdateItem")


@pytest.mark.parametrize(
    ("error", "waits"),
    [
        (_refusal("ExpiredTokenException"), True),
        (_refusal("ProvisionedThroughputExceededException"), True),
        (_refusal("ThrottlingException"), True),
        (_refusal("InternalServerError", 500), True),
        (NoCredentialsError(), True),
        (EndpointConnectionError(endpoint_url="https://vpce.example"), True),
        (_refusal("AccessDeniedException"), False),
        (_refusal("ResourceNotFoundException"), False),
        (ValueError("a mistake of ours"), False),
    ],
)
def test_what_passes_is_waited_for_and_what_does_not_ends_the_agent(error, waits):
    assert unreachable(error) == waits
