"""The registry: versions are written once, found by fingerprint, and compatible with all before."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest
from moto import mock_aws

from schemas.change_record import Column, TableSchema
from schemas.errors import IncompatibleSchema, RegistryConflict, UnknownFingerprint
from schemas.registry import Registry

ORDERS = TableSchema("shop", "orders", (Column("id", "int", "id", "integer"),), ("id",))
WIDER = replace(ORDERS, columns=(Column("id", "long", "id", "bigint"),))


@pytest.fixture
def dynamodb(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)  # other tests point it at the laptop's AWS
    with mock_aws():
        client = boto3.client("dynamodb", "eu-central-1", aws_access_key_id="test", aws_secret_access_key="test")
        client.create_table(
            TableName="schemas",
            KeySchema=[
                {"AttributeName": "subject", "KeyType": "HASH"},
                {"AttributeName": "version", "KeyType": "RANGE"},
            ],
            AttributeDefinitions=[
                {"AttributeName": "subject", "AttributeType": "S"},
                {"AttributeName": "version", "AttributeType": "N"},
            ],
            BillingMode="PAY_PER_REQUEST",
        )
        yield client


def test_versions_are_counted_and_registering_again_changes_nothing(dynamodb: Any) -> None:
    """register is idempotent; a new structure is the next version."""
    registry = Registry(dynamodb, "schemas")
    assert registry.register(ORDERS).version == 1
    assert Registry(dynamodb, "schemas").register(ORDERS).version == 1
    assert registry.register(WIDER).version == 2
    assert [item.version for item in registry.versions("shop", "orders")] == [1, 2]


def test_a_schema_is_found_by_its_fingerprint(dynamodb: Any) -> None:
    """Another process finds what one registered; what is unknown raises, and is looked up again later."""
    reader = Registry(dynamodb, "schemas")
    with pytest.raises(UnknownFingerprint, match=ORDERS.fingerprint().hex()):
        reader.by_fingerprint(ORDERS.fingerprint())
    Registry(dynamodb, "schemas").register(ORDERS)
    assert reader.by_fingerprint(ORDERS.fingerprint()).schema == ORDERS


def test_an_incompatible_schema_is_refused_with_the_reason(dynamodb: Any) -> None:
    """Compatibility is transitive: a key's new type is compared with every version there was."""
    registry = Registry(dynamodb, "schemas")
    registry.register(ORDERS)
    registry.register(WIDER)
    text = replace(ORDERS, columns=(Column("id", "string", "id", "text"),))
    with pytest.raises(IncompatibleSchema, match=r"shop\.orders: key column id was int and is string; key column"):
        registry.register(text)
    assert registry.latest("shop", "orders") == registry.by_fingerprint(WIDER.fingerprint())


def test_two_writers_of_one_version_are_told_apart(dynamodb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The conditional put lets one writer have the version; the other is told to read again, and then succeeds."""
    slow = Registry(dynamodb, "schemas")
    Registry(dynamodb, "schemas").register(ORDERS)
    with monkeypatch.context() as patch:
        patch.setattr(slow, "versions", lambda source, table: [])
        with pytest.raises(RegistryConflict):
            slow.register(WIDER)
    assert slow.register(WIDER).version == 2


def test_a_table_called_as_one_of_ours_is_refused(dynamodb: Any) -> None:
    """Its rows would lie in our own table of holes, or its view in the watermark's place."""
    with pytest.raises(IncompatibleSchema, match="holes is what Headrace calls a table of its own"):
        Registry(dynamodb, "schemas").register(replace(ORDERS, table="holes"))
