"""Values in the text forms that Athena writes to its results: VarCharValue and the result file."""

from collections.abc import Callable, Iterable
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .athena_types import TrinoType

Texts = list[str | None]


def column_texts(column: pa.ChunkedArray | pa.Array, kind: TrinoType) -> Texts:
    """The text of every value of a result column; None for NULL."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    found: Texts = []
    for chunk in chunks:
        found.extend(_texts(chunk, kind))
    return found


def _texts(array: pa.Array, kind: TrinoType) -> Texts:
    if pa.types.is_null(array.type):
        return [None] * len(array)
    if kind.base == "array":
        return _lists(array, kind)
    if kind.base == "map":
        return _maps(array, kind)
    if kind.base == "row":
        return _rows(array, kind)
    return _SCALARS.get(kind.base, _plain)(array, kind)


def _plain(array: pa.Array, kind: TrinoType) -> Texts:
    return array.cast(pa.string()).to_pylist()  # type: ignore[no-any-return]


def _decimals(array: pa.Array, kind: TrinoType) -> Texts:
    return [None if value is None else f"{value:f}" for value in array.to_pylist()]


def _each(form: Callable[..., str]) -> Callable[[pa.Array, TrinoType], Texts]:
    return lambda array, kind: [None if value is None else form(value) for value in array.to_pylist()]


def double_text(value: float) -> str:
    """A double as Java prints it: 1.0, 1.0E10, 1.5E-5, NaN, Infinity."""
    return _java(repr(value))


def real_text(value: float) -> str:
    """A real: as few digits as tell it from its neighbours."""
    return _java(str(np.float32(value)))


_WORDS = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_PLAIN_EXPONENTS = range(-3, 7)  # Java writes 0.001 up to 9999999.9 without an exponent


def _java(text: str) -> str:
    if text in _WORDS:
        return _WORDS[text]
    sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text)
    mantissa, _, power = digits.partition("e")
    whole, _, fraction = mantissa.partition(".")
    figures = (whole + fraction).lstrip("0")
    if not figures:
        return f"{sign}0.0"
    leading_zeros = len(whole + fraction) - len(figures)
    exponent = len(whole) - 1 - leading_zeros + int(power or 0)
    figures = figures.rstrip("0")
    if exponent not in _PLAIN_EXPONENTS:
        return f"{sign}{figures[0]}.{figures[1:] or '0'}E{exponent}"
    if exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{figures}"
    padded = figures.ljust(exponent + 1, "0")
    return f"{sign}{padded[: exponent + 1]}.{padded[exponent + 1 :] or '0'}"


def _timestamps(array: pa.Array, kind: TrinoType) -> Texts:
    return [None if text == "NaT" else text.replace("T", " ") for text in _moments(array)]


def _instants(array: pa.Array, kind: TrinoType) -> Texts:
    """With its zone, always UTC here. Milliseconds are Trino's usual precision; a finer instant shows its micros."""
    return [
        None if text == "NaT" else text.replace("T", " ").removesuffix("000" if text.endswith("000") else "") + " UTC"
        for text in _moments(array)
    ]


def _moments(array: pa.Array) -> Iterable[str]:
    unit = "ms" if array.type.unit == "s" else array.type.unit
    numbers = array.cast(pa.timestamp(unit, array.type.tz)).cast(pa.int64())
    filled = pc.fill_null(numbers, np.iinfo(np.int64).min).to_numpy(zero_copy_only=False)
    return np.datetime_as_string(filled.view(f"datetime64[{unit}]")).tolist()  # type: ignore[no-any-return]


def _dates(array: pa.Array, kind: TrinoType) -> Texts:
    days = pc.fill_null(array.cast(pa.int32()).cast(pa.int64()), np.iinfo(np.int64).min).to_numpy(zero_copy_only=False)
    return [None if text == "NaT" else text for text in np.datetime_as_string(days.view("datetime64[D]")).tolist()]


def _times(array: pa.Array, kind: TrinoType) -> Texts:
    return [None if value is None else value.isoformat("microseconds") for value in array.to_pylist()]


def binary_text(value: bytes) -> str:
    """Bytes as pairs of hexadecimal digits: 01 ff."""
    return value.hex(" ")


def _interval(value: pa.MonthDayNano) -> str:
    if value.months:
        sign = "-" if value.months < 0 else ""
        return f"{sign}{abs(value.months) // 12}-{abs(value.months) % 12}"
    millis = value.days * 86_400_000 + value.nanoseconds // 1_000_000
    sign = "-" if millis < 0 else ""
    seconds, rest = divmod(abs(millis), 1000)
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return f"{sign}{days} {hour:02}:{minute:02}:{second:02}.{rest:03}"


def _lists(array: pa.Array, kind: TrinoType) -> Texts:
    elements = _nested(array.flatten(), kind.children[0])
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_pylist()
    return _joined(array, lengths, elements, "[", "]")


def _maps(array: pa.Array, kind: TrinoType) -> Texts:
    start, stop = array.offsets[0].as_py(), array.offsets[-1].as_py()
    keys = _nested(array.keys[start:stop], kind.children[0])
    values = _nested(array.items[start:stop], kind.children[1])
    offsets = array.offsets.to_pylist()
    lengths = [after - before for before, after in pairwise(offsets)]
    pairs = [f"{key}={value}" for key, value in zip(keys, values, strict=True)]
    return _joined(array, lengths, pairs, "{", "}")


def _rows(array: pa.Array, kind: TrinoType) -> Texts:
    columns = [_nested(child, part) for child, part in zip(array.flatten(), kind.children, strict=True)]
    names = kind.fields or tuple(f"field{position}" for position in range(len(columns)))
    valid = array.is_valid().to_pylist()
    return [
        "{" + ", ".join(f"{name}={text}" for name, text in zip(names, texts, strict=True)) + "}" if there else None
        for there, texts in zip(valid, zip(*columns, strict=True), strict=True)
    ]


def _nested(array: pa.Array, kind: TrinoType) -> list[str]:
    return ["null" if text is None else text for text in _texts(array, kind)]


def _joined(array: pa.Array, lengths: list[int], elements: list[str], opening: str, closing: str) -> Texts:
    found: Texts = []
    position = 0
    for valid, length in zip(array.is_valid().to_pylist(), lengths, strict=True):
        found.append(opening + ", ".join(elements[position : position + length]) + closing if valid else None)
        position += length
    return found


_SCALARS: dict[str, Callable[[pa.Array, TrinoType], Texts]] = {
    "double": _each(double_text),
    "real": _each(real_text),
    "decimal": _decimals,
    "timestamp": _timestamps,
    "timestamp with time zone": _instants,
    "date": _dates,
    "time": _times,
    "varbinary": _each(binary_text),
    "interval day to second": _each(_interval),
}
