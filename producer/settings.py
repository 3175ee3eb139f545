"""The agent's configuration: one TOML file, validated whole, every problem reported with file, key and remedy."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from producer.errors import ConfigurationRefused

_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_MAX_LANES: Final = 256


@dataclass(frozen=True)
class SourceSettings:
    """The upstream database. The password comes from the environment (PGPASSWORD) or a pgpass file."""

    name: str
    dsn: str
    slot: str
    publication: str


@dataclass(frozen=True)
class SpoolSettings:
    """The durable queue. Capture pauses at max_bytes; a block waits at most linger_ms for company."""

    path: Path
    max_bytes: int = 8 * 1024**3
    linger_ms: int = 50
    block_bytes: int = 512 * 1024


@dataclass(frozen=True)
class EndpointSettings:
    """A URL for each service that the agent calls, such as those of a VPC's interface endpoints."""

    kinesis: str | None = None
    dynamodb: str | None = None
    s3: str | None = None


@dataclass(frozen=True)
class AwsSettings:
    """Where blocks go. `claims` is the S3 prefix for payloads above the stream's record limit.

    A service is called at its own URL in `endpoints`, else at `endpoint_url`, else at the region's public address.
    """

    stream: str = "headrace"
    dynamodb_prefix: str = "headrace"
    region: str | None = None
    endpoint_url: str | None = None
    endpoints: EndpointSettings = EndpointSettings()
    claims: str = "s3://headrace-lake/claims"

    def endpoint(self, service: str) -> str | None:
        """The URL to call a service at; None means the region's public address."""
        own: str | None = getattr(self.endpoints, service)
        return own or self.endpoint_url


@dataclass(frozen=True)
class TableSettings:
    """Tables by name or pattern (`public.*`), the number of their lanes, and whether they only grow."""

    name: str
    lanes: int = 1
    append_only: bool = False


@dataclass(frozen=True)
class HealthSettings:
    """Loopback port of the agent's health page; 0 takes a free one, None serves none."""

    port: int | None = None


@dataclass(frozen=True)
class Settings:
    source: SourceSettings
    spool: SpoolSettings
    aws: AwsSettings
    tables: tuple[TableSettings, ...]
    health: HealthSettings


def load(path: Path) -> Settings:
    """The settings in a TOML file. Raises ConfigurationRefused with all problems together."""
    try:
        document = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigurationRefused(str(path), [f"{path}: cannot be read: {error.strerror}"]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationRefused(str(path), [f"{path}: not valid TOML: {error}"]) from error
    return parse(document, str(path))


def parse(document: Mapping[str, Any], file: str) -> Settings:
    """The settings that a TOML document holds; relative paths stay relative to the working directory."""
    reader = _Reader(file)
    source = reader.section(document, "source", _SOURCE, required=True)
    spool = reader.section(document, "spool", _SPOOL, required=True)
    aws = reader.section(document, "aws", _AWS)
    health = reader.section(document, "health", _HEALTH)
    tables = reader.tables(document)
    reader.unknown(document, "", {"source", "spool", "aws", "health", "tables"})
    if reader.problems:
        raise ConfigurationRefused(file, reader.problems)
    name = source["name"]
    return Settings(
        source=SourceSettings(
            **{"slot": f"headrace_{name}", "publication": f"headrace_{name}", **source},
        ),
        spool=SpoolSettings(**{**spool, "path": Path(spool["path"])}),
        aws=AwsSettings(**{**aws, "endpoints": EndpointSettings(**aws.get("endpoints", {}))}),
        tables=tuple(TableSettings(**table) for table in tables),
        health=HealthSettings(**health),
    )


@dataclass(frozen=True)
class _Field:
    expected: str
    holds: Callable[[Any], bool]
    required: bool = False


_Fields = Mapping[str, "_Field | Mapping[str, _Field]"]


def _text(expected: str = "a text", pattern: re.Pattern[str] | None = None, *, required: bool = False) -> _Field:
    def holds(value: Any) -> bool:
        return isinstance(value, str) and value != "" and (pattern is None or pattern.fullmatch(value) is not None)

    return _Field(expected, holds, required)


def _whole(low: int, high: int, unit: str = "") -> _Field:
    def holds(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return _Field(f"a whole number{unit} from {low} to {high}", holds)


_PLAIN: Final = "lower-case letters, digits and _, starting with a letter"
_SOURCE: Final = {
    "name": _text(_PLAIN, _NAME, required=True),
    "dsn": _text("a PostgreSQL connection string", required=True),
    "slot": _text(_PLAIN, _NAME),
    "publication": _text(_PLAIN, _NAME),
}
_SPOOL: Final = {
    "path": _text("the path of a file", required=True),
    "max_bytes": _whole(16 * 1024**2, 2**50, " of bytes"),
    "linger_ms": _whole(1, 10_000, " of milliseconds"),
    "block_bytes": _whole(1024, 1_000_000, " of bytes"),
}
_URL: Final = _text("a URL that starts with http:// or https://", re.compile(r"https?://[^\s/]+\S*"))
_AWS: Final[_Fields] = {
    "stream": _text("the name of a Kinesis stream"),
    "dynamodb_prefix": _text("the prefix of the DynamoDB tables' names"),
    "region": _text("an AWS region"),
    "endpoint_url": _URL,
    "endpoints": {"kinesis": _URL, "dynamodb": _URL, "s3": _URL},
    "claims": _text("an S3 prefix such as s3://bucket/claims", re.compile(r"s3://[^/]+/.+")),
}
_TABLE: Final = {
    "name": _text("schema.table, where * stands for any text", re.compile(r"[^.]+\.[^.]+"), required=True),
    "lanes": _whole(1, _MAX_LANES),
    "append_only": _Field("true or false", lambda value: isinstance(value, bool)),
}
_HEALTH: Final = {"port": _whole(0, 65535)}


class _Reader:
    """Collects problems instead of stopping at the first."""

    def __init__(self, file: str) -> None:
        self.problems: list[str] = []
        self._file = file

    def section(
        self, document: Mapping[str, Any], name: str, fields: _Fields, *, required: bool = False
    ) -> dict[str, Any]:
        if name not in document:
            if required:
                wanted = ", ".join(key for key, field in fields.items() if isinstance(field, _Field) and field.required)
                self._problem(name, f"expected a section [{name}] with {wanted}, got none")
            return {}
        return self._fields(document[name], name, fields)

    def tables(self, document: Mapping[str, Any]) -> list[dict[str, Any]]:
        entries = document.get("tables")
        if not isinstance(entries, list) or not entries:
            self._problem("tables", f"expected at least one [[tables]] with a name, got {_shown(entries)}")
            return []
        tables = [self._fields(entry, f"tables[{at}]", _TABLE) for at, entry in enumerate(entries)]
        names = [table.get("name") for table in tables]
        for at, name in enumerate(names):
            if name is not None and name in names[:at]:
                self._problem(f"tables[{at}].name", f"expected each table once, got {name!r} again")
        return tables

    def unknown(self, values: Mapping[str, Any], prefix: str, known: set[str]) -> None:
        for key in values:
            if key not in known:
                self._problem(f"{prefix}{key}", f"unknown; expected one of {', '.join(sorted(known))}")

    def _fields(self, values: Any, name: str, fields: _Fields) -> dict[str, Any]:
        if not isinstance(values, dict):
            self._problem(name, f"expected a section, got {_shown(values)}")
            return {}
        self.unknown(values, f"{name}.", set(fields))
        known: dict[str, Any] = {}
        for key, field in fields.items():
            if key in values:
                known[key] = self._value(values[key], f"{name}.{key}", field)
            elif isinstance(field, _Field) and field.required:
                self._problem(f"{name}.{key}", f"expected {field.expected}, got nothing")
        return known

    def _value(self, value: Any, name: str, field: _Field | Mapping[str, _Field]) -> Any:
        if not isinstance(field, _Field):
            return self._fields(value, name, field)
        if not field.holds(value):
            self._problem(name, f"expected {field.expected}, got {_shown(value)}")
        return value

    def _problem(self, key: str, text: str) -> None:
        self.problems.append(f"{self._file}: {key}: {text}")


def _shown(value: Any) -> str:
    return "nothing" if value is None else repr(value)
