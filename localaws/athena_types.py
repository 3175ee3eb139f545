"""Types: Iceberg's and DuckDB's as Trino names them, and Trino's as DuckDB spells them."""

from dataclasses import dataclass
from typing import Any

from pyiceberg import types as iceberg
from sqlglot import exp


@dataclass(frozen=True, slots=True)
class TrinoType:
    """A type as Trino writes it: `text`, and its parts. `fields` are a row's names (unnamed: empty)."""

    base: str
    arguments: tuple[int, ...] = ()
    children: tuple["TrinoType", ...] = ()
    fields: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        if self.base == "row":
            return f"row({', '.join(self._field_texts())})"
        if self.children:
            return f"{self.base}({', '.join(child.text for child in self.children)})"
        if not self.arguments:
            return self.base
        head, zone, tail = self.base.partition(" with time zone")
        return f"{head}({', '.join(map(str, self.arguments))}){zone}{tail}"

    def _field_texts(self) -> list[str]:
        if not self.fields:
            return [child.text for child in self.children]
        return [f"{name} {child.text}" for name, child in zip(self.fields, self.children, strict=True)]


_PLAIN = {
    "boolean": "boolean", "tinyint": "tinyint", "smallint": "smallint", "integer": "integer", "bigint": "bigint",
    # An unsigned or 128-bit integer is only ever the result of a sum or a function: Trino's would be a bigint.
    "hugeint": "bigint", "uhugeint": "bigint", "ubigint": "bigint", "uinteger": "bigint", "usmallint": "integer",
    "utinyint": "smallint", "bignum": "bigint", "float": "real", "double": "double", "varchar": "varchar",
    "enum": "varchar", "blob": "varbinary", "bit": "varchar", "uuid": "uuid", "date": "date", "json": "json",
    "interval": "interval day to second", '"null"': "unknown", "null": "unknown", "sqlnull": "unknown",
}  # fmt: skip

_TIMES = {
    "timestamp_s": ("timestamp", 0), "timestamp_ms": ("timestamp", 3), "timestamp": ("timestamp", 6),
    "timestamp_ns": ("timestamp", 9), "timestamp with time zone": ("timestamp with time zone", 6), "time": ("time", 6),
    "time with time zone": ("time with time zone", 6), "time_ns": ("time", 9),
}  # fmt: skip


def from_duckdb(kind: Any) -> TrinoType:
    """The Trino type of a DuckDB result column."""
    name = str(kind.id).lower()
    if str(kind) == "JSON":
        return TrinoType("json")
    if name in _TIMES:
        base, precision = _TIMES[name]
        return TrinoType(base, (precision,))
    if name == "decimal":
        return TrinoType("decimal", tuple(int(value) for _, value in kind.children))
    if name in ("list", "array"):
        return TrinoType("array", children=(from_duckdb(kind.children[0][1]),))
    if name == "map":
        return TrinoType("map", children=tuple(from_duckdb(child) for _, child in kind.children))
    if name in ("struct", "tuple"):
        named = name == "struct"
        children = tuple(from_duckdb(child) for _, child in kind.children)
        return TrinoType("row", children=children, fields=tuple(field for field, _ in kind.children) if named else ())
    return TrinoType(_PLAIN.get(name, "varchar"))


_ICEBERG: dict[type[iceberg.IcebergType], tuple[TrinoType, str]] = {
    iceberg.BooleanType: (TrinoType("boolean"), "BOOLEAN"),
    iceberg.IntegerType: (TrinoType("integer"), "INTEGER"),
    iceberg.LongType: (TrinoType("bigint"), "BIGINT"),
    iceberg.FloatType: (TrinoType("real"), "FLOAT"),
    iceberg.DoubleType: (TrinoType("double"), "DOUBLE"),
    iceberg.DateType: (TrinoType("date"), "DATE"),
    iceberg.TimeType: (TrinoType("time", (6,)), "TIME"),
    iceberg.TimestampType: (TrinoType("timestamp", (6,)), "TIMESTAMP"),
    iceberg.TimestamptzType: (TrinoType("timestamp with time zone", (6,)), "TIMESTAMP WITH TIME ZONE"),
    iceberg.StringType: (TrinoType("varchar"), "VARCHAR"),
    iceberg.UUIDType: (TrinoType("uuid"), "UUID"),
    iceberg.BinaryType: (TrinoType("varbinary"), "BLOB"),
    iceberg.FixedType: (TrinoType("varbinary"), "BLOB"),
}


def from_iceberg(kind: iceberg.IcebergType) -> TrinoType:
    """The Trino type of an Iceberg column."""
    if isinstance(kind, iceberg.DecimalType):
        return TrinoType("decimal", (kind.precision, kind.scale))
    if isinstance(kind, iceberg.ListType):
        return TrinoType("array", children=(from_iceberg(kind.element_type),))
    if isinstance(kind, iceberg.MapType):
        return TrinoType("map", children=(from_iceberg(kind.key_type), from_iceberg(kind.value_type)))
    if isinstance(kind, iceberg.StructType):
        names, children = tuple(f.name for f in kind.fields), tuple(from_iceberg(f.field_type) for f in kind.fields)
        return TrinoType("row", children=children, fields=names)
    return _ICEBERG[type(kind)][0]


def iceberg_in_duckdb(kind: iceberg.IcebergType) -> str:
    """How DuckDB spells an Iceberg column's type."""
    if isinstance(kind, iceberg.DecimalType):
        return f"DECIMAL({kind.precision},{kind.scale})"
    if isinstance(kind, iceberg.ListType):
        return f"{iceberg_in_duckdb(kind.element_type)}[]"
    if isinstance(kind, iceberg.MapType):
        return f"MAP({iceberg_in_duckdb(kind.key_type)}, {iceberg_in_duckdb(kind.value_type)})"
    if isinstance(kind, iceberg.StructType):
        parts = (f"{quoted(field.name)} {iceberg_in_duckdb(field.field_type)}" for field in kind.fields)
        return f"STRUCT({', '.join(parts)})"
    return _ICEBERG[type(kind)][1]


_DEFAULT_TIMESTAMP_PRECISION = 3  # Trino's own
_RENAMED = {
    "VARBINARY": "BLOB",
    "REAL": "FLOAT",
    "TEXT": "VARCHAR",
    "CHAR": "VARCHAR",
    "INT": "INTEGER",
    "UNKNOWN": "VARCHAR",
}


def trino_in_duckdb(kind: exp.DataType) -> str:
    """How DuckDB spells a type that was parsed from Trino's SQL. A varchar's length is the caller's to apply."""
    name, arguments = getattr(kind.this, "value", "INTERVAL"), kind.expressions
    if name in ("ARRAY", "LIST"):
        return f"{trino_in_duckdb(arguments[0])}[]"
    if name == "MAP":
        return f"MAP({', '.join(trino_in_duckdb(each) for each in arguments)})"
    if name in ("STRUCT", "OBJECT"):
        named = all(isinstance(each, exp.ColumnDef) for each in arguments)
        parts = [
            f"{quoted(each.name)} {trino_in_duckdb(each.args['kind'])}" if named else trino_in_duckdb(each)
            for each in arguments
        ]
        return f"STRUCT({', '.join(parts)})" if named else f"TUPLE({', '.join(parts)})"
    numbers = [int(each.name) for each in arguments if each.name.isdigit()]
    if name in ("TIMESTAMPTZ", "TIMESTAMPLTZ"):
        return "TIMESTAMP WITH TIME ZONE"
    if name in ("TIMESTAMP", "TIMESTAMPNTZ", "DATETIME"):
        precision = numbers[0] if numbers else _DEFAULT_TIMESTAMP_PRECISION
        return "TIMESTAMP_MS" if precision <= 3 else "TIMESTAMP" if precision <= 6 else "TIMESTAMP_NS"
    if name == "DECIMAL":
        precision, scale = (*numbers, 0, 0)[:2] if numbers else (38, 0)
        return f"DECIMAL({precision},{scale})"
    return _RENAMED.get(name, name)


def from_trino(kind: exp.DataType) -> TrinoType:
    """A type parsed from Trino's SQL in the same form as the others. Times are as precise as DuckDB holds them."""
    name, arguments = getattr(kind.this, "value", "INTERVAL"), kind.expressions
    if name in ("ARRAY", "LIST"):
        return TrinoType("array", children=(from_trino(arguments[0]),))
    if name == "MAP":
        return TrinoType("map", children=tuple(from_trino(each) for each in arguments))
    if name in ("STRUCT", "OBJECT"):
        named = all(isinstance(each, exp.ColumnDef) for each in arguments)
        children = tuple(from_trino(each.args["kind"] if named else each) for each in arguments)
        return TrinoType("row", children=children, fields=tuple(each.name for each in arguments) if named else ())
    spelled = trino_in_duckdb(kind).lower()
    if spelled in _TIMES:
        base, precision = _TIMES[spelled]
        return TrinoType(base, (precision,))
    if name == "DECIMAL":
        digits = spelled.removeprefix("decimal(").removesuffix(")").split(",")
        return TrinoType("decimal", tuple(map(int, digits)))
    return TrinoType(_PLAIN.get(spelled, spelled))


def parse(text: str) -> exp.DataType:
    """A type as Trino writes it, for example a view's column."""
    return exp.DataType.build(text, dialect="trino")


def quoted(name: str) -> str:
    """An identifier that DuckDB takes as it stands."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A string literal."""
    return "'" + text.replace("'", "''") + "'"
