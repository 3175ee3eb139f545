"""A bill as people and programs read it: as a table, in Markdown, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from ops.cost import Bill, Prices


def shown(found: Bill, prices: Prices) -> Table:
    view = _table(prices)
    view.add_column("component")
    view.add_column("what")
    for column in ("quantity", "price"):
        view.add_column(column, justify="right")
    view.add_column("unit")
    view.add_column("amount", justify="right")
    for row in rows(found, prices):
        view.add_row(*row)
    return view


def rows(found: Bill, prices: Prices) -> Iterator[Sequence[str]]:
    """The bill as texts: the lines of a component, then its sum, and the total at the end."""
    for component, amount in sorted(found.by_component().items(), key=lambda item: -item[1]):
        for line in (line for line in found.lines if line.component == component):
            unit = prices.units[line.price]
            yield "", line.what, f"{line.quantity:,.2f}", f"{prices.prices[line.price]:g}", unit, f"{line.amount:,.2f}"
        yield component, "", "", "", "", f"{amount:,.2f}"
    yield "total", "", "", "", "", f"{found.total:,.2f}"


def compared(bills: Mapping[str, Bill], prices: Prices) -> Table:
    """One row a choice, one column a component."""
    components = _components(bills)
    view = _table(prices)
    view.add_column("choice")
    for name in (*components, "total"):
        view.add_column(name, justify="right")
    for choice, found in bills.items():
        sums = found.by_component()
        view.add_row(choice, *(f"{sums.get(name, 0):,.0f}" for name in components), f"{found.total:,.0f}")
    return view


def to_json(found: Bill, prices: Prices) -> dict[str, Any]:
    return {
        "region": prices.region,
        "currency": prices.currency,
        "prices_read_on": prices.read_on,
        "source": prices.source,
        "load": vars(found.load),
        "lines": [
            {**vars(line), "unit": prices.units[line.price], "unit_price": prices.prices[line.price]}
            for line in found.lines
        ],
        "components": found.by_component(),
        "total": found.total,
        "notes": list(found.notes),
    }


def markdown(found: Bill, prices: Prices) -> str:
    """The bill as a Markdown table, the same rows as people see."""
    lines = ["| component | what | quantity | price | unit | amount |", "|---|---|---:|---:|---|---:|"]
    lines += [f"| {' | '.join(_bold(row))} |" for row in rows(found, prices)]
    return "\n".join(lines)


def compared_markdown(bills: Mapping[str, Bill]) -> str:
    """The comparison as a Markdown table."""
    components = _components(bills)
    lines = [f"| choice | {' | '.join(components)} | total |", f"|---|{'---:|' * (len(components) + 1)}"]
    for choice, found in bills.items():
        sums = found.by_component()
        amounts = " | ".join(f"{sums.get(name, 0):,.0f}" for name in components)
        lines.append(f"| {choice} | {amounts} | **{found.total:,.0f}** |")
    return "\n".join(lines)


def _table(prices: Prices) -> Table:
    title = f"a month in {prices.region}, {prices.currency}"
    return Table(title=title, title_justify="left", show_edge=False, pad_edge=False)


def _components(bills: Mapping[str, Bill]) -> list[str]:
    return list(dict.fromkeys(name for found in bills.values() for name in found.by_component()))


def _bold(row: Sequence[str]) -> Sequence[str]:
    return [f"**{cell}**" if cell else cell for cell in row] if row[0] else row
