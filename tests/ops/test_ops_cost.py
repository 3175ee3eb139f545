"""`headrace cost`: a bill follows from the load and the price file, line by line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops import __main__ as command
from ops import bill as view
from ops import cost, cost_document
from ops.errors import OpsError
from ops.load import Load, changed, from_terraform, options

PRICES = cost.read_prices()


def lines(load: Load) -> dict[str, cost.Line]:
    return {f"{line.component}: {line.what}": line for line in cost.bill(load, PRICES).lines}


def test_stream_is_billed_by_shard_hours_retention_and_payload_units() -> None:
    """A month has 730 hours; retention beyond a day costs by the shard-hour too."""
    found = lines(Load(shards=4, retention_hours=168))
    assert found["stream: shards"].amount == pytest.approx(4 * 730 * 0.015)
    assert found["stream: retention up to 7 days"].amount == pytest.approx(4 * 730 * 0.02)
    assert "stream: retention up to 7 days" not in lines(Load(retention_hours=24))
    assert "stream: retention beyond 7 days" in lines(Load(retention_hours=720))


def test_large_blocks_take_several_payload_units() -> None:
    """100 blocks a second of 100 KB: four units each, beside a progress record a second."""
    load = Load(changes_per_second=100_000, bytes_per_change=102.4, tables=5)
    seconds = 730 * 3600
    assert lines(load)["stream: records written"].quantity == pytest.approx((100 * 4 + 1) * seconds / 1e6)


def test_stream_on_demand_is_billed_by_the_hour_and_what_it_carries() -> None:
    """A record is rounded up to a whole KB, written and read once."""
    found = lines(Load(stream_mode="ON_DEMAND", changes_per_second=10, bytes_per_change=100, tables=20))
    carried = (10 + 1) * 1024 * 730 * 3600 / 1024**3
    assert found["stream: the stream"].amount == pytest.approx(730 * 0.04)
    assert found["stream: written"].amount == pytest.approx(carried * 0.08)
    assert found["stream: read"].amount == pytest.approx(carried * 0.04)
    assert "stream: shards" not in found


def test_continuous_job_stands_all_month() -> None:
    assert cost.bill(Load(workers=2, worker_type="G.025X"), PRICES).by_component()["streaming job"] == pytest.approx(
        0.5 * 730 * 0.44
    )
    assert cost.bill(Load(workers=3, worker_type="G.2X"), PRICES).by_component()["streaming job"] == pytest.approx(
        6 * 730 * 0.44
    )


def test_draining_is_billed_for_its_runs_only() -> None:
    """A run of a minute every quarter of an hour is a fifteenth of a standing job; commits are as rare as the runs."""
    standing, draining = Load(changes_per_second=1), Load(changes_per_second=1, mode="drain", ingest_minutes=15)
    share = cost.bill(draining, PRICES).by_component()["streaming job"] / (0.5 * 730 * 0.44)
    assert share == pytest.approx(1 / 15, rel=0.01)
    assert lines(draining)["lake: writes"].quantity < lines(standing)["lake: writes"].quantity / 10


def test_endpoints_cost_by_zone_and_hour() -> None:
    found = lines(Load(vpn_connections=1, endpoints=7, zones=3))
    assert found["network: interface endpoints"].amount == pytest.approx(7 * 3 * 730 * 0.01)
    assert found["network: VPN connections"].amount == pytest.approx(36.5)
    assert "network: VPN connections" not in lines(Load())


@settings(max_examples=60, deadline=None)
@given(
    factor=st.floats(1, 50),
    stream=st.sampled_from(["PROVISIONED", "ON_DEMAND"]),
    mode=st.sampled_from(["continuous", "drain"]),
    name=st.sampled_from(["changes_per_second", "queries_per_day", "base_gib", "fold_runs_per_day", "log_gib"]),
)
def test_more_never_costs_less(factor: float, stream: str, mode: str, name: str) -> None:
    load = Load(stream_mode=stream, mode=mode, ingest_minutes=15)
    more = replace(load, **{name: getattr(load, name) * factor})
    assert cost.bill(more, PRICES).total >= cost.bill(load, PRICES).total - 1e-9


def test_total_is_the_sum_of_components_and_of_lines() -> None:
    found = cost.bill(Load(), PRICES)
    assert found.total == pytest.approx(sum(found.by_component().values()))
    assert all(line.amount == pytest.approx(line.quantity * PRICES.prices[line.price]) for line in found.lines)


def test_every_price_is_used_and_has_a_unit() -> None:
    """A price that no load asks for is dead weight in the file, and one without a unit is a riddle."""
    loads = (
        Load(vpn_connections=1, endpoints=1, resolver_addresses=2, retention_hours=720),
        Load(stream_mode="ON_DEMAND", retention_hours=168),
    )
    assert {line.price for load in loads for line in cost.bill(load, PRICES).lines} == set(PRICES.prices)
    assert all(PRICES.units.values())


def test_shards_below_the_load_are_said() -> None:
    notes = cost.bill(Load(shards=1, changes_per_second=50_000, bytes_per_change=60), PRICES).notes
    assert notes == ("shards: 1 take 1 MiB/s, and the load is 2.9 MiB/s on average: name at least 9",)


def test_drain_that_outlasts_its_period_is_said() -> None:
    load = Load(mode="drain", ingest_minutes=1, changes_per_second=200_000, shards=100)
    assert any("longer than its period" in note for note in cost.bill(load, PRICES).notes)


def test_wrong_figures_are_reported_together() -> None:
    with pytest.raises(OpsError) as error:
        changed(Load(), {"shards": 0, "mode": "sometimes", "tables": "many", "colour": 1})
    for part in (
        "shards: 0 is below 1",
        "mode: 'sometimes' is none of",
        "tables: 'many' is no number",
        "colour: no such",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"value": x, "type": "object"}, lambda x: {"cost_inputs": x}])
def test_terraform_output_is_read_alone_or_among_others(wrap: object) -> None:
    assert callable(wrap)
    assert from_terraform(json.dumps(wrap({"shards": 3})), "f") == {"shards": 3}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"other": {"value": 1, "type": "number"}, "cost_inputs": 3}'])
def test_what_is_no_output_is_refused_with_the_command_that_makes_it(text: str) -> None:
    with pytest.raises(OpsError, match="terraform output -json cost_inputs"):
        from_terraform(text, "f")


def test_options_come_before_terraforms_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = tmp_path / "inputs.json"
    inputs.write_text(json.dumps({"shards": 3, "workers": 4}))
    assert command.main(["cost", "--json", "--from-terraform", str(inputs), "--workers", "5"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["load"]["shards"], printed["load"]["workers"]) == (3, 5)
    assert printed["prices_read_on"] == PRICES.read_on
    assert printed["total"] == pytest.approx(cost.bill(Load(shards=3, workers=5), PRICES).total)


def test_terraforms_figures_are_figures_of_a_load() -> None:
    """The names in the Terraform output are the names here, or the bill would refuse them."""
    text = (Path(cost.__file__).parent.parent / "terraform" / "output.tf").read_text()
    block = text[text.index('output "cost_inputs"') :]
    names = {line.split("=")[0].strip() for line in block.splitlines() if line.startswith("    ") and "=" in line}
    assert names
    assert names <= {option.name for option in options()}


def test_comparison_shows_each_choice(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["cost", "--compare", "--json"]) == 0
    bills = json.loads(capsys.readouterr().out)
    assert bills["drain every 15 min"]["total"] < bills["as stated"]["total"] < bills["continuous, G.1X"]["total"]


def test_example_bills_in_the_document_are_the_commands_own() -> None:
    """Remedy when this fails: python -m ops.cost_document --write."""
    text = cost_document.DOCUMENT.read_text()
    assert cost_document.written(text, PRICES) == text
    for example in cost_document.EXAMPLES:
        found = cost.bill(cost_document.load_of(example), PRICES)
        assert f"<!-- bill: {example} -->" in text
        assert f"**{found.total:,.2f}**" in text
        assert found.notes == ()


def test_price_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"prices": {"x": {"price": "dear", "unit": "y"}}}')
    with pytest.raises(OpsError, match=r"p\.json: no price file"):
        cost.read_prices(tmp_path / "p.json")


def test_table_for_people_ends_with_the_total() -> None:
    found = cost.bill(Load(), PRICES)
    assert list(view.rows(found, PRICES))[-1] == ("total", "", "", "", "", f"{found.total:,.2f}")
