"""Filters in JSONPath, as state machines use them to look at a job's runs."""

from typing import Any

import pytest

from localaws import path_filters

RUNS = {
    "runs": [
        {"id": 1, "state": "RUNNING", "with": {"--mode": "x"}},
        {"id": 2, "state": "FAILED", "error": "x"},
        {"id": 3, "state": "FAILED"},
    ]
}


def plain(path: str, data: Any) -> Any:
    """Members only: `$.a.b`."""
    for name in path.split(".")[1:]:
        data = data.get(name) if isinstance(data, dict) else None
    return data


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$.runs[?(@.state == 'RUNNING')].id", [1]),
        ("$.runs[?(@.state != 'RUNNING')].id", [2, 3]),
        ("$.runs[?(@.id >= 2 && @.error)].id", [2]),
        ("$.runs[?(@.id < 2 || @.error == 'x')].id", [1, 2]),
        ("$.runs[?(@.error == null)].id", [1, 3]),
        ("$.runs[?(@.error > 5)].id", []),
        ("$.none[?(@.id == 1)]", []),
        ("$.runs[?(@.with['--mode'] == 'x')].id", [1]),
        ("$.runs[?(@.id > 1 && @.with['--mode'] == 'x')].id", []),
        ("$.runs", RUNS["runs"]),
    ],
)
def test_filter_selects(path: str, found: list[Any]) -> None:
    assert path_filters.resolve(path, RUNS, plain) == found


@pytest.mark.parametrize("condition", ["state == 'x'", "@.state == x", "@.state ~ 'x'"])
def test_filter_that_cannot_be_read_is_refused(condition: str) -> None:
    with pytest.raises(ValueError, match="filter"):
        path_filters.resolve(f"$.runs[?({condition})]", RUNS, plain)
