"""The agent's configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from producer.clouds import client
from producer.errors import ConfigurationRefused
from producer.settings import load

VALID = """
[source]
name = "shop"
dsn = "host=db dbname=shop user=headrace"
[spool]
path = "/var/lib/headrace/spool.db"
[[tables]]
name = "public.accounts"
"""


def _load(tmp_path: Path, text: str):
    path = tmp_path / "agent.toml"
    path.write_text(text)
    return load(path)


def _problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigurationRefused) as refused:
        _load(tmp_path, text)
    return [problem.removeprefix(f"{tmp_path}/") for problem in refused.value.problems]


def test_a_small_file_is_enough(tmp_path):
    """What is not said has a default; slot and publication are named after the source."""
    settings = _load(tmp_path, VALID)
    assert (settings.source.slot, settings.source.publication) == ("headrace_shop", "headrace_shop")
    assert (settings.aws.stream, settings.tables[0].lanes, settings.health.port) == ("headrace", 1, None)


def test_all_mistakes_are_reported_together(tmp_path):
    """Each problem names the file, the key, what is expected and what is there."""
    text = VALID.replace('name = "shop"', 'name = "Shop!"') + 'lanes = "many"\n[health]\nport = true\n'
    assert _problems(tmp_path, text) == [
        "agent.toml: source.name: expected lower-case letters, digits and _, starting with a letter, got 'Shop!'",
        "agent.toml: health.port: expected a whole number from 0 to 65535, got True",
        "agent.toml: tables[0].lanes: expected a whole number from 1 to 256, got 'many'",
    ]


def test_an_unknown_key_is_a_mistake(tmp_path):
    """A misspelt key is named, with those that exist."""
    problems = _problems(tmp_path, VALID + "lane = 2\n[sources]\n")
    assert problems == [
        "agent.toml: tables[0].lane: unknown; expected one of append_only, exclude, exclude_columns, hash_columns, "
        "lanes, mask_columns, name, priority, rename, where",
        "agent.toml: sources: unknown; expected one of aws, health, snapshot, source, spool, tables",
    ]


def test_an_empty_file_lists_what_is_needed(tmp_path):
    assert _problems(tmp_path, "") == [
        "agent.toml: source: expected a section [source] with name, dsn, got none",
        "agent.toml: spool: expected a section [spool] with path, got none",
        "agent.toml: tables: expected at least one [[tables]] with a name, got nothing",
    ]


def test_a_file_that_is_no_toml_or_is_missing_is_named(tmp_path):
    assert "not valid TOML" in _problems(tmp_path, "[source")[0]
    with pytest.raises(ConfigurationRefused, match=r"nowhere\.toml: cannot be read"):
        load(tmp_path / "nowhere.toml")


def test_a_table_is_named_once(tmp_path):
    assert _problems(tmp_path, VALID + '[[tables]]\nname = "public.accounts"\n') == [
        "agent.toml: tables[1].name: expected each table once, got 'public.accounts' again"
    ]


def test_a_service_is_called_at_its_own_endpoint(tmp_path):
    """Its URL in [aws.endpoints] comes first, then endpoint_url, then the region's public address."""
    public = _load(tmp_path, VALID).aws
    common = _load(tmp_path, VALID + '[aws]\nendpoint_url = "http://127.0.0.1:4566"\n').aws
    own = _load(
        tmp_path,
        VALID + '[aws]\nregion = "eu-central-1"\nendpoint_url = "http://127.0.0.1:4566"\n'
        '[aws.endpoints]\nkinesis = "https://vpce-1.kinesis.eu-central-1.vpce.amazonaws.com"\n',
    ).aws
    services = ("kinesis", "dynamodb", "s3")
    assert [public.endpoint(service) for service in services] == [None, None, None]
    assert [common.endpoint(service) for service in services] == ["http://127.0.0.1:4566"] * 3
    assert [client(service, own).meta.endpoint_url for service in services] == [
        "https://vpce-1.kinesis.eu-central-1.vpce.amazonaws.com",
        "http://127.0.0.1:4566",
        "http://127.0.0.1:4566",
    ]


def test_endpoints_are_validated_with_the_rest(tmp_path):
    """A value that is no URL, and a service that the agent never calls, are named with their section."""
    text = VALID + '[aws.endpoints]\ns3 = "vpce-1.s3.amazonaws.com"\nathena = "https://athena"\n'
    assert _problems(tmp_path, text) == [
        "agent.toml: aws.endpoints.athena: unknown; expected one of dynamodb, kinesis, s3",
        "agent.toml: aws.endpoints.s3: expected a URL that starts with http:// or https://,"
        " got 'vpce-1.s3.amazonaws.com'",
    ]
    assert _problems(tmp_path, VALID + '[aws]\nendpoints = "https://one"\n') == [
        "agent.toml: aws.endpoints: expected a section, got 'https://one'"
    ]


def test_what_is_hidden_is_said_once_and_with_its_key(tmp_path):
    """A column is in one list; hashes need their key; a new name needs one table."""
    text = VALID + 'exclude_columns = ["ssn"]\nhash_columns = ["ssn"]\n[[tables]]\nname = "public.*"\nrename = "all"\n'
    assert _problems(tmp_path, text) == [
        "agent.toml: tables[0]: expected each column in one list, got 'ssn' again",
        "agent.toml: source.hash_key_file: expected the key that tables[0].hash_columns needs",
        "agent.toml: tables[1].rename: expected one table's name beside it, got 'public.*'",
    ]
