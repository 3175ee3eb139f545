"""The agent's configuration: one TOML file, validated whole, every problem reported with file, key and remedy."""

from __future__ import annotations

import codecs
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from producer.errors import ConfigurationRefused
from producer.files.columns import TYPES, avro_of

_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_MAX_LANES: Final = 256


@dataclass(frozen=True)
class SourceSettings:
    """The upstream database. The password comes from the environment (PGPASSWORD) or a pgpass file.

    streaming: transactions beyond the source's logical_decoding_work_mem wait here, beside the spool, for their commit,
    not on the source's disk. hash_key_file: what columns are hashed with; who has it can look for known values.
    heartbeat_seconds: how often to write a message to the source's log, None for never. Only a server that is idle for
    hours, with replicas or backups that wait for its log to move, needs it.
    """

    name: str
    dsn: str
    slot: str
    publication: str
    streaming: bool = False
    heartbeat_seconds: int | None = None
    hash_key_file: str | None = None


@dataclass(frozen=True)
class SpoolSettings:
    """The durable queue. Capture pauses at max_bytes; a block waits at most linger_ms for company, after a quiet moment
    not at all.

    min_outage_seconds: the agent warns when the spool holds less of an outage at the pace of the last hour.
    """

    path: Path
    max_bytes: int = 8 * 1024**3
    min_outage_seconds: int = 3600
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
    profile: of ~/.aws/config. proxy: a URL. ca_bundle: a file of authorities to trust, client_certificate: a PEM file
    with certificate and key. max_bytes_per_second: of blocks to Kinesis, None for no bound.
    """

    stream: str = "headrace"
    dynamodb_prefix: str = "headrace"
    region: str | None = None
    endpoint_url: str | None = None
    endpoints: EndpointSettings = EndpointSettings()
    claims: str = "s3://headrace-lake/claims"
    profile: str | None = None
    proxy: str | None = None
    ca_bundle: str | None = None
    client_certificate: str | None = None
    max_bytes_per_second: int | None = None

    def endpoint(self, service: str) -> str | None:
        """The URL to call a service at; None means the region's public address."""
        own: str | None = getattr(self.endpoints, service)
        return own or self.endpoint_url


@dataclass(frozen=True)
class TableSettings:
    """Tables by name or pattern (`public.*`), the number of their lanes, and whether they only grow.

    priority: blocks of a table with a higher one are sent before others that wait.
    exclude: names or patterns that are not meant. exclude_columns stay on the site, hash_columns leave it as an HMAC,
    mask_columns with their last so many characters. where: an SQL condition; rename: the table's name in the lake.
    """

    name: str
    lanes: int = 1
    append_only: bool = False
    priority: int = 0
    exclude: tuple[str, ...] = ()
    exclude_columns: tuple[str, ...] = ()
    hash_columns: tuple[str, ...] = ()
    mask_columns: Mapping[str, int] = field(default_factory=dict)
    where: str | None = None
    rename: str | None = None


@dataclass(frozen=True)
class FileTable:
    """Files of one table: a pattern below the folder, and how to read them.

    columns: types by column name (producer.files.columns.TYPES); the others are texts, or what JSON, Parquet and Avro
    say. null: the text that stands for null in a CSV file. A CSV file without a header has just the columns named.
    """

    name: str
    pattern: str
    format: str
    columns: Mapping[str, str] = field(default_factory=dict)
    encoding: str = "utf-8"
    delimiter: str = ","
    header: bool = True
    null: str = ""


@dataclass(frozen=True)
class FilesSettings:
    """A folder in which files are dropped. A file is taken once it has not changed for settle_seconds.

    archive: where files go when the source may forget them; without one they stay where they are.
    """

    folder: Path
    tables: tuple[FileTable, ...]
    archive: Path | None = None
    settle_seconds: int = 5


@dataclass(frozen=True)
class SnapshotSettings:
    """How tables are read: `readers` groups of about group_bytes at a time.

    The source's load bounds it: no more than max_rows_per_second over all readers, and no new group while more than
    max_active_sessions other sessions work or a replica is further behind than max_replica_lag_seconds. None is no
    bound.
    """

    readers: int = 2
    group_bytes: int = 1024**3
    max_rows_per_second: int | None = None
    max_active_sessions: int | None = None
    max_replica_lag_seconds: int | None = None


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
    files: FilesSettings | None = None
    snapshot: SnapshotSettings = SnapshotSettings()


def load(path: Path) -> Settings:
    """The settings in a TOML file. Raises ConfigurationRefused with all problems together."""
    try:
        document = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigurationRefused(str(path), [f"{path}: cannot be read: {error.strerror}"]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationRefused(str(path), [f"{path}: not valid TOML: {error}"]) from error
    return parse(document, str(path))


def check_reloadable(before: Settings, anew: Settings) -> None:
    """Raises ConfigurationRefused that names what differs and holds from a start only."""
    spool = replace(anew.spool, linger_ms=before.spool.linger_ms, block_bytes=before.spool.block_bytes)
    source = replace(anew.source, hash_key_file=before.source.hash_key_file)
    files = anew.files and before.files and replace(anew.files, tables=before.files.tables)
    fixed = replace(anew, tables=before.tables, spool=spool, source=source, files=files)
    sections = [name for name in vars(fixed) if getattr(fixed, name) != getattr(before, name)]
    if sections:
        problems = [f"section [{name}] differs in what holds from a start only: restart the agent" for name in sections]
        raise ConfigurationRefused(before.source.name, problems)


def parse(document: Mapping[str, Any], file: str) -> Settings:
    """The settings that a TOML document holds; relative paths stay relative to the working directory."""
    reader = _Reader(file)
    files = reader.section(document, "files", _FILES) if "files" in document else None
    source = reader.section(document, "source", _SOURCE if files is None else _FILES_SOURCE, required=True)
    spool = reader.section(document, "spool", _SPOOL, required=True)
    aws = reader.section(document, "aws", _AWS)
    health = reader.section(document, "health", _HEALTH)
    snapshot = reader.section(document, "snapshot", _SNAPSHOT)
    tables = reader.tables(document, "tables", _TABLE) if files is None else []
    file_tables = reader.tables(document["files"], "files.tables", _FILE_TABLE) if files else []
    known = {"snapshot", "tables"} if files is None else {"files"}
    reader.unknown(document, "", {"source", "spool", "aws", "health"} | known)
    reader.shapings(tables, "hash_key_file" in source)
    if reader.problems:
        raise ConfigurationRefused(file, reader.problems)
    name = source["name"]
    return Settings(
        source=SourceSettings(
            **{"dsn": "", "slot": f"headrace_{name}", "publication": f"headrace_{name}", **source},
        ),
        spool=SpoolSettings(**{**spool, "path": Path(spool["path"])}),
        aws=AwsSettings(**{**aws, "endpoints": EndpointSettings(**aws.get("endpoints", {}))}),
        tables=tuple(TableSettings(**_hashable(table)) for table in tables),
        health=HealthSettings(**health),
        files=None if files is None else _files(files, file_tables),
        snapshot=SnapshotSettings(**snapshot),
    )


def _hashable(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _files(values: Mapping[str, Any], tables: Sequence[Mapping[str, Any]]) -> FilesSettings:
    return FilesSettings(
        folder=Path(values["folder"]),
        tables=tuple(FileTable(**table) for table in tables),
        archive=Path(values["archive"]) if "archive" in values else None,
        settle_seconds=values.get("settle_seconds", FilesSettings.settle_seconds),
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


def _column_types(value: Any) -> bool:
    try:
        return isinstance(value, dict) and all(isinstance(kind, str) and avro_of(kind) for kind in value.values())
    except ValueError:
        return False


def _encoding(value: Any) -> bool:
    try:
        return isinstance(value, str) and codecs.lookup(value) is not None
    except LookupError:
        return False


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and item for item in value)


def _counts(value: Any) -> bool:
    return isinstance(value, dict) and all(type(count) is int and count >= 0 for count in value.values())


_PLAIN: Final = "lower-case letters, digits and _, starting with a letter"
_SOURCE: Final = {
    "name": _text(_PLAIN, _NAME, required=True),
    "dsn": _text("a PostgreSQL connection string", required=True),
    "slot": _text(_PLAIN, _NAME),
    "publication": _text(_PLAIN, _NAME),
    "streaming": _Field("true or false", lambda value: isinstance(value, bool)),
    "heartbeat_seconds": _whole(1, 86_400, " of seconds"),
    "hash_key_file": _text("the path of a file with at least 32 random bytes"),
}
_SPOOL: Final = {
    "path": _text("the path of a file", required=True),
    "max_bytes": _whole(16 * 1024**2, 2**50, " of bytes"),
    "min_outage_seconds": _whole(0, 10**7, " of seconds"),
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
    "profile": _text("the name of a profile in ~/.aws/config"),
    "proxy": _URL,
    "ca_bundle": _text("the path of a PEM file"),
    "client_certificate": _text("the path of a PEM file with certificate and key"),
    "max_bytes_per_second": _whole(1024, 2**40, " of bytes"),
}
_TABLE: Final = {
    "name": _text("schema.table, where * stands for any text", re.compile(r"[^.]+\.[^.]+"), required=True),
    "lanes": _whole(1, _MAX_LANES),
    "append_only": _Field("true or false", lambda value: isinstance(value, bool)),
    "priority": _whole(-100, 100),
    "exclude": _Field("a list of schema.table, where * stands for any text", _texts),
    "exclude_columns": _Field("a list of columns", _texts),
    "hash_columns": _Field("a list of columns", _texts),
    "mask_columns": _Field("a table of column = how many characters at its end are shown", _counts),
    "where": _text("an SQL condition on the table's columns"),
    "rename": _text(_PLAIN, _NAME),
}
_SNAPSHOT: Final = {
    "readers": _whole(1, 16, " of readers"),
    "group_bytes": _whole(64 * 1024, 2**40, " of bytes"),
    "max_rows_per_second": _whole(1, 10**9, " of rows"),
    "max_active_sessions": _whole(0, 10_000, " of sessions"),
    "max_replica_lag_seconds": _whole(0, 86_400, " of seconds"),
}
_HEALTH: Final = {"port": _whole(0, 65535)}
_BELOW: Final = re.compile(r"(?!/)(?!.*\.\.).+")
_FILES_SOURCE: Final = {"name": _SOURCE["name"]}
_FILES: Final[_Fields] = {
    "folder": _text("the path of a folder", required=True),
    "archive": _text("the path of a folder outside of it"),
    "settle_seconds": _whole(0, 86_400, " of seconds"),
    "tables": _Field("a list of [[files.tables]]", lambda value: isinstance(value, list)),
}
_FILE_TABLE: Final = {
    "name": _text(_PLAIN, _NAME, required=True),
    "pattern": _text(
        "a pattern below the folder, such as orders/*.csv", re.compile(r"(?!/)(?!.*\.\.).+"), required=True
    ),
    "format": _Field("csv, jsonl, parquet or avro", lambda v: v in ("csv", "jsonl", "parquet", "avro"), required=True),
    "columns": _Field(f"a table of column = type, each one of {', '.join(TYPES)}", _column_types),
    "encoding": _Field("an encoding, such as utf-8 or latin-1", _encoding),
    "delimiter": _text("one character", re.compile(r".|\t")),
    "header": _Field("true or false", lambda value: isinstance(value, bool)),
    "null": _Field("a text", lambda value: isinstance(value, str)),
}


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

    def tables(self, document: Mapping[str, Any], section: str, fields: _Fields) -> list[dict[str, Any]]:
        entries = document.get("tables")
        if not isinstance(entries, list) or not entries:
            self._problem(section, f"expected at least one [[{section}]] with a name, got {_shown(entries)}")
            return []
        tables = [self._fields(entry, f"{section}[{at}]", fields) for at, entry in enumerate(entries)]
        names = [table.get("name") for table in tables]
        for at, name in enumerate(names):
            if name is not None and name in names[:at]:
                self._problem(f"{section}[{at}].name", f"expected each table once, got {name!r} again")
        return tables

    def shapings(self, tables: Sequence[Mapping[str, Any]], has_key: bool) -> None:
        for at, table in enumerate(tables):
            lists = [list(table.get(name, ())) for name in ("exclude_columns", "hash_columns", "mask_columns")]
            every = [column for columns in lists for column in columns]
            for column in sorted({column for column in every if every.count(column) > 1}):
                self._problem(f"tables[{at}]", f"expected each column in one list, got {column!r} again")
            if table.get("hash_columns") and not has_key:
                self._problem("source.hash_key_file", f"expected the key that tables[{at}].hash_columns needs")
            if "rename" in table and any(sign in table.get("name", "") for sign in "*?["):
                self._problem(f"tables[{at}].rename", f"expected one table's name beside it, got {table['name']!r}")

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
        for key, wanted in fields.items():
            if key in values:
                known[key] = self._value(values[key], f"{name}.{key}", wanted)
            elif isinstance(wanted, _Field) and wanted.required:
                self._problem(f"{name}.{key}", f"expected {wanted.expected}, got nothing")
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
