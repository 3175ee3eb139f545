"""JSONPath filters such as `$.JobRuns[?(@.JobRunState == 'RUNNING')].Id`, which ministack's paths lack. Pure.

A filter compares paths under `@` with literals, joined by && and ||; a path alone asks whether the member exists.
A path may end with a quoted member: `@.Arguments['--mode']`.
"""

import ast
import operator
import re
from collections.abc import Callable
from typing import Any

Resolve = Callable[[str, Any], Any]

_FILTER = re.compile(r"(?P<before>.*?)\[\?\((?P<condition>.*?)\)\](?P<after>.*)", re.DOTALL)
_COMPARISON = re.compile(
    r"\s*@(?P<path>[\w.\[\]]*?)(?:\['(?P<member>[^']+)'\])?\s*(?:(?P<sign>==|!=|<=|>=|<|>)\s*(?P<literal>.+?))?\s*",
    re.DOTALL,
)
_SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_WORDS = {"true": True, "false": False, "null": None}


def resolve(path: str, data: Any, plain: Resolve) -> Any:
    """What a path with or without filters selects; `plain` resolves the parts without."""
    matched = _FILTER.fullmatch(path)
    if matched is None:
        return plain(path, data)
    candidates = resolve(matched["before"], data, plain)
    listed = candidates if isinstance(candidates, list) else []
    chosen = [item for item in listed if holds(matched["condition"], item, plain)]
    if not matched["after"]:
        return chosen
    below = [resolve("$" + matched["after"], item, plain) for item in chosen]
    return [found for found in below if found is not None]


def holds(condition: str, item: Any, plain: Resolve) -> bool:
    """Whether an item passes a filter's condition. Raises ValueError for a condition that cannot be read."""
    return any(
        all(_compares(part, item, plain) for part in alternative.split("&&")) for alternative in condition.split("||")
    )


def _compares(comparison: str, item: Any, plain: Resolve) -> bool:
    matched = _COMPARISON.fullmatch(comparison)
    if matched is None:
        raise ValueError(f"The filter {comparison.strip()!r} cannot be read: expected @.member == literal")
    found = plain("$" + matched["path"], item)
    if matched["member"]:
        found = found.get(matched["member"]) if isinstance(found, dict) else None
    if matched["sign"] is None:
        return found is not None
    literal = matched["literal"]
    try:
        wanted = _WORDS[literal] if literal in _WORDS else ast.literal_eval(literal)
        return _SIGNS[matched["sign"]](found, wanted)
    except TypeError:
        return False
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"The filter {comparison.strip()!r} has no literal on its right side") from error
