"""The figure of docs/performance.md shows the results that are committed beside it."""

from __future__ import annotations

import json
from xml.etree import ElementTree

from bench import figure
from bench.harness import RESULTS


def test_the_figure_is_drawn_from_the_results() -> None:
    results = json.loads((RESULTS / "fold.json").read_text())
    assert figure.FIGURE.read_text() == figure.drawn(figure.points(results))


def test_a_fold_is_a_point_at_its_rows_and_seconds() -> None:
    """Axes end at round values; a point at an axis' end lies at the panel's edge."""
    results = {
        "rows": [
            {"measure": f"{kind} fold, tail of {part}%", "unit": f"CPU s at {rows} rows", "ours": seconds}
            for kind, part, rows, seconds in (
                ("major", 5, 1_000_000, 2.0),
                ("major", 5, 8_000_000, 20.0),
                ("major", 50, 1_000_000, 4.0),
                ("minor", 5, 1_000_000, 1.0),
                ("minor", 5, 8_000_000, 5.0),
                ("minor", 50, 1_000_000, 3.0),
            )
        ]
        + [{"measure": "fitted: largest error", "unit": "part of the figure", "ours": 0.1}]
    }
    picture = ElementTree.fromstring(figure.drawn(figure.points(results)))
    circles = [(float(item.get("cx", 0)), float(item.get("cy", 0))) for item in picture if item.tag.endswith("circle")]
    assert len(circles) == 8
    assert (350.0, 34.0) in circles and (87.5, 214.0) in circles
