"""Checks of a provider that the user wrote: found by class and module, reported like the others."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from bpqp_portfolio.cli import app
from bpqp_portfolio.data.provider.simulate import simulate_market
from bpqp_portfolio.data.quality.check import check_provider
from bpqp_portfolio.data.quality.findings import build_checks
from bpqp_portfolio.errors import ConfigError

SOURCE = '''
class Cheap:
    """Names that ever closed below a price."""

    name, severity, what, remedy = "cheap", "error", "closes below a price", "drop the name"

    def __init__(self, price=5.0):
        self.price = price

    def places(self, provider):
        for name in provider.names:
            if (provider.series(name, "close") < self.price).any():
                yield f"{name} below {self.price:g}"


class Taken(Cheap):
    name = "ohlc"


class Grave(Cheap):
    severity = "errror"


class Nothing:
    name = "nothing"
'''


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    return simulate_market(tmp_path_factory.mktemp("own") / "sim", names=4, years=0.3, factors=2)


@pytest.fixture
def desk(tmp_path):
    (tmp_path / "desk.py").write_text(SOURCE)
    return str(tmp_path / "desk.py")


def test_an_own_check_is_reported_with_the_others(market, desk):
    spec = {"class": "Cheap", "module_path": desk, "kwargs": {"price": 1e9}}
    found = check_provider(market.root, checks=[spec])["cheap"]
    assert (found.severity, found.what) == ("error", "closes below a price")
    assert found.count == len(market.names) and found.places[0].endswith("below 1e+09")
    none = {"class": "Cheap", "module_path": desk, "kwargs": {"price": 0.0}}
    assert "cheap" not in check_provider(market.root, checks=[none])


def test_the_command_takes_an_own_check_and_ends_by_its_severity(market, desk):
    plain = CliRunner().invoke(app, ["data", "check", str(market.root)])
    source = SOURCE.replace("price=5.0", "price=1e9")
    with open(desk, "w") as file:
        file.write(source)
    arguments = ["data", "check", str(market.root), "--check", f"{desk}:Cheap", "--json"]
    mine = CliRunner().invoke(app, arguments)
    assert plain.exit_code == 0 and mine.exit_code == 1
    assert '"check": "cheap"' in mine.output


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Cheep", "check: no class 'Cheep' .*Did you mean 'Cheap'"),
        ("Taken", "the name 'ohlc' is taken"),
        ("Grave", "no severity 'errror'. Did you mean 'error'"),
        ("Nothing", "has no severity, what, remedy, places"),
    ],
)
def test_what_is_no_check_is_named(desk, name, message):
    with pytest.raises(ConfigError, match=message):
        build_checks([{"class": name, "module_path": desk}])
