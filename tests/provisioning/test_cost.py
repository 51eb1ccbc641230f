"""What a lake costs: from measured figures and dated prices, and the page that shows it."""

import json
import re
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from provisioning import cost
from provisioning.__main__ import app
from provisioning.cost import (
    HOURS_A_MONTH,
    PARAMETERS_FOLDER,
    Environment,
    Load,
    Measured,
    Prices,
    bill,
    measured,
    read_environment,
    segments,
)
from telemetry_lake.failures import ConfigurationError
from telemetry_lake.project_files import PROJECT_ROOT

PAGE = PROJECT_ROOT / "docs" / "cost.md"
SIZES = {
    "NodeCount": 2,
    "NodeInstanceType": "m5.large",
    "NodeWorkers": 1,
    "SpoolGib": 100,
    "RawDays": 30,
    "ZoneCount": 2,
    "DatabaseClass": "db.t4g.small",
    "WorkersMax": 8,
    "CertificateArn": "costs nothing",
}
FOUND = Measured(16_600, 5_073, 1 / 1_975, 31 / 12_000, 6.7 / 12_000, ("a test",))


@pytest.fixture
def parameters(tmp_path: Path) -> Path:
    """A file of parameters."""
    file = tmp_path / "2014.json"
    file.write_text(json.dumps(SIZES))
    return file


def command(*arguments: str) -> list[str]:
    """Return the lines that the command prints."""
    result = CliRunner().invoke(app, ["cost", *arguments])
    assert result.exit_code == 0, result.output
    return [line.rstrip() for line in result.output.rstrip().splitlines()]


def dollars(load: Load, *, balancer: str = "nlb", found: Measured = FOUND) -> dict[str, float]:
    """Return the price of each part."""
    result = bill(Environment.model_validate(SIZES), load, found, Prices(), balancer=balancer)
    return {name: price for name, _, price in result.parts}


def test_the_parts_are_what_their_formulas_say() -> None:
    # The same as was computed by hand for 10^9 pings at 732/s, which is 379.5 hours.
    billion = {
        name: price * 10**9 / (732 * HOURS_A_MONTH * 3_600)
        for name, price in dollars(Load(732, 30, 30)).items()
    }
    assert billion["balancer (NLB)"] == pytest.approx(108, abs=1)
    assert billion["ingest nodes"] == pytest.approx(73, abs=1)
    # A month has 30.4 days, so 30 days of raw objects are a little less than a month of them.
    assert billion["S3: raw objects"] == pytest.approx(356 * 30 / 30.4, abs=2)
    assert billion["S3: live.pings"] == pytest.approx(109 * 30 / 30.4, abs=2)
    assert 54 <= billion["Spark: stable.pings"] <= 74


def test_what_is_kept_longer_or_sent_larger_costs_more_in_proportion() -> None:
    base, longer, larger = (
        dollars(load) for load in (Load(732, 30, 30), Load(732, 60, 30), Load(732, 30, 30, compression=2))
    )
    assert longer["S3: raw objects"] == pytest.approx(2 * base["S3: raw objects"])
    assert {name for name in base if longer[name] != base[name]} == {"S3: raw objects"}
    assert larger["S3: raw objects"] == pytest.approx(2 * base["S3: raw objects"])
    assert larger["balancer (NLB)"] > 1.9 * base["balancer (NLB)"]
    assert dollars(Load(732, 30, 30), balancer="alb")["balancer (ALB)"] > base["balancer (NLB)"]


def test_with_little_traffic_segments_are_those_that_grew_old() -> None:
    environment = Environment.model_validate(SIZES)
    assert segments(environment, Load(0.001, 30, 30), FOUND) == pytest.approx(2 * HOURS_A_MONTH * 60)
    full = segments(environment, Load(732, 30, 30), FOUND)
    assert full == pytest.approx(732 * HOURS_A_MONTH * 3_600 * 16_600 / (64 * 1024**2))


def test_measured_figures_are_those_of_the_results_and_a_missing_one_is_named(tmp_path: Path) -> None:
    found = measured()
    results = PROJECT_ROOT / "benchmarks" / "results"
    figures = {
        figure["name"]: figure for figure in json.loads((results / "convert.json").read_text())["figures"]
    }
    assert found.stored_bytes == figures["stored"]["value"]
    assert 10_000 < found.ping_bytes < 100_000
    with pytest.raises(ConfigurationError, match="run `make bench-convert`"):
        measured(tmp_path)
    (tmp_path / "convert.json").write_text('{"figures": []}')
    with pytest.raises(ConfigurationError, match="has no figure 'stored' in bytes/ping"):
        measured(tmp_path)


def test_every_price_has_a_date_and_a_source_and_an_unknown_one_is_refused() -> None:
    prices = Prices()
    assert prices.of("s3_storage_gib_month") == 0.023
    assert not prices.unchecked
    assert prices.of("instance_hour", "m7i.large")
    assert prices.unchecked["m7i.large"].as_of == date(2026, 11, 30)
    with pytest.raises(
        ConfigurationError, match=r"prices.yaml has no instance_hour of x1.huge: add it there"
    ):
        prices.of("instance_hour", "x1.huge")


def test_a_load_above_the_ceiling_of_workers_is_refused_with_the_parameter() -> None:
    with pytest.raises(ConfigurationError, match="WorkersMax is 8: raise it"):
        dollars(Load(10_000, 30, 30))


def test_the_command_names_parts_sources_and_unchecked_prices(parameters: Path) -> None:
    shown = command("-e", "2014", "--pings-per-second", "732", "--parameters", str(parameters))
    assert shown[0] == "2014 at 732 pings/s: 1.92 billion pings a month, US dollars"
    table = [line for line in shown if re.search(r"\d \s*[\d,]+\.\d\d$", line)]
    amounts = [float(line.split()[-2].replace(",", "")) for line in table]
    assert amounts[-1] == pytest.approx(sum(amounts[:-1]), abs=0.2)
    assert "  benchmarks/results/convert.json: 16,600 bytes a ping with gzip, 5,073 stored" in shown
    assert "  db.t4g.small: $0.032 (a public table of monthly prices ($23.36))" in shown


def test_what_is_not_right_is_said_in_a_sentence(parameters: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not there: name an environment"):
        read_environment(tmp_path / "huge.json")
    parameters.write_text('{"NodeCount": "many"}')
    with pytest.raises(ConfigurationError, match=r"2014\.json: "):
        read_environment(parameters)
    refused = CliRunner().invoke(
        app,
        [
            "cost",
            "-e",
            "2014",
            "--pings-per-second",
            "1",
            "--balancer",
            "elb",
            "--parameters",
            str(parameters),
        ],
    )
    assert isinstance(refused.exception, ConfigurationError)


def test_the_page_shows_what_the_command_prints() -> None:
    if not PARAMETERS_FOLDER.is_dir():
        pytest.skip("cloudformation/parameters/ is not there: the page shows the environments in it")
    blocks = re.findall(
        r"<!-- python -m provisioning cost ([^\n]*) -->\n```\n(.*?)```", PAGE.read_text(), re.DOTALL
    )
    assert len(blocks) == 2
    for arguments, shown in blocks:
        assert shown.rstrip().splitlines() == command(*arguments.split()), (
            f"run it again and put it on {PAGE.name}"
        )
    assert cost.LIVE_DAYS == 30
