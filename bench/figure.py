"""How folds grow, drawn from bench/results/fold.json.

    python -m bench.figure          (`make figure`)

Writes docs/fold-growth.svg: CPU seconds by rows of base, where a twentieth of them changed, and by the changed part.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from bench.harness import RESULTS

FIGURE = RESULTS.parents[1] / "docs" / "fold-growth.svg"
COLOURS = {"major": "#b3541e", "minor": "#1e5fb3"}
_WIDTH, _HEIGHT, _LEFT, _TOP = 300, 200, 50, 34
_TICKS = 4


class Point(NamedTuple):
    """One fold: rows of base, the part of them that changed, and the CPU seconds it took."""

    kind: str
    rows: int
    part: float
    seconds: float


def points(results: Mapping[str, Any]) -> list[Point]:
    """The folds that the benchmark's part `growth` measured."""
    found = []
    for row in results["rows"]:
        measure = re.fullmatch(r"(minor|major) fold, tail of (\d+)%", row["measure"])
        rows = re.fullmatch(r"CPU s at (\d+) rows", row["unit"])
        if measure and rows:
            found.append(Point(measure[1], int(rows[1]), int(measure[2]) / 100, row["ours"]))
    return found


def drawn(folds: Iterable[Point]) -> str:
    """The figure as SVG."""
    folds = list(folds)
    smallest = min(fold.rows for fold in folds)
    by_rows = [(fold.kind, fold.rows / 1e6, fold.seconds) for fold in folds if fold.part == 0.05]
    by_part = [(fold.kind, fold.part * 100, fold.seconds) for fold in folds if fold.rows == smallest]
    panels = [
        _panel(0, "5% of the rows changed", "million rows of base", by_rows),
        _panel(_WIDTH + 80, f"{smallest / 1e6:g} million rows of base", "% of them changed", by_part),
    ]
    width, height = 2 * _WIDTH + 160, _HEIGHT + 90
    style = "font-family: sans-serif; font-size: 11px; background: white"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" style="{style}">',
            "<title>CPU seconds of minor and major folds, by rows of base and by the part that changed</title>",
            *panels,
            "</svg>\n",
        ]
    )


def _panel(x: int, title: str, axis: str, curve: list[tuple[str, float, float]]) -> str:
    """CPU seconds over something, a line a kind of fold, on linear axes that begin at 0."""
    across, up = (_end(max(values)) for values in list(zip(*curve, strict=True))[1:])

    def at(value: float, seconds: float) -> tuple[str, str]:
        return f"{x + _LEFT + value / across * _WIDTH:.1f}", f"{_TOP + (1 - seconds / up) * _HEIGHT:.1f}"

    def line(places: Iterable[tuple[str, str]], style: str) -> str:
        return f'<polyline points="{" ".join(map(",".join, places))}" {style} fill="none"/>'

    drawn = [
        f'<text x="{x + _LEFT}" y="16" font-weight="bold">{title}</text>',
        f'<text x="{x + _LEFT}" y="{_TOP - 6}">CPU s</text>',
        f'<text x="{x + _LEFT + _WIDTH}" y="{_TOP + _HEIGHT + 34}" text-anchor="end">{axis}</text>',
    ]
    for step in range(_TICKS + 1):
        value, seconds = across * step / _TICKS, up * step / _TICKS
        drawn += [
            line([at(0, seconds), at(across, seconds)], 'stroke="#ddd"'),
            f'<text x="{x + _LEFT - 6}" y="{at(0, seconds)[1]}" text-anchor="end">{seconds:g}</text>',
            f'<text x="{at(value, 0)[0]}" y="{_TOP + _HEIGHT + 16}" text-anchor="middle">{value:g}</text>',
        ]
    for kind, colour in COLOURS.items():
        places = [at(*point) for point in sorted((value, seconds) for name, value, seconds in curve if name == kind)]
        drawn.append(line(places, f'stroke="{colour}" stroke-width="2"'))
        drawn += [f'<circle cx="{cx}" cy="{cy}" r="3" fill="{colour}"/>' for cx, cy in places]
        label_x, label_y = places[-1]
        drawn.append(
            f'<text x="{label_x}" y="{float(label_y) - 8:.1f}" text-anchor="end" fill="{colour}">{kind}</text>'
        )
    return "\n".join(drawn)


def _end(largest: float) -> float:
    """A round end of an axis at or above the largest value."""
    step = 10 ** (len(str(int(largest))) - 1) / 2 if largest >= 1 else 0.25
    return step * -(-largest // step)


def main() -> None:
    FIGURE.write_text(drawn(points(json.loads((RESULTS / "fold.json").read_text()))))


if __name__ == "__main__":
    main()
