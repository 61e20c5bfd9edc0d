"""Configuration: dataclasses from mappings, names from registries, numbers in their range."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest

from bpqp_portfolio.config import check_keys, check_number, from_mapping, lookup, nearest
from bpqp_portfolio.errors import BPQPError, ConfigError


@dataclass(frozen=True)
class Settings:
    window: int
    decay: float = 0.5
    tags: list = field(default_factory=list)

    def __post_init__(self) -> None:
        check_number(self.window, "window", low=1, integer=True)
        check_number(self.decay, "decay", low=0, high=1, open_low=True)


@dataclass(frozen=True)
class Nothing:
    pass


def test_a_mapping_fills_a_dataclass():
    assert from_mapping(Settings, {"window": 3}, "x") == Settings(3)
    assert from_mapping(Settings, {"window": 3, "decay": 1, "tags": ["a"]}, "x").tags == ["a"]
    assert from_mapping(Nothing, None, "x") == Nothing()


def test_an_instance_passes_through():
    settings = Settings(3)
    assert from_mapping(Settings, settings, "x") is settings


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"window": 3, "decya": 0.1}, r"^risk: unknown key 'decya'\. Did you mean 'decay'\?$"),
        ({"window": 3, "zzz": 1}, r"^risk: unknown key 'zzz'\. Known: decay, tags, window\.$"),
        ({"decay": 0.1}, r"^risk: missing 'window'\.$"),
        (None, r"^risk: missing 'window'\.$"),
        ({"window": 0}, r"^risk\.window: must be >= 1, got 0\.$"),
        ({"window": 3, "decay": 0}, r"^risk\.decay: must be > 0 and <= 1, got 0\.$"),
        ([("window", 3)], r"^risk: expected a mapping, got \[\('window', 3\)\]\.$"),
        ("window", r"^risk: expected a mapping, got 'window'\.$"),
        ({3: 4}, r"^risk: unknown key 3\."),
    ],
)
def test_what_is_wrong_is_said_with_its_place(mapping, message):
    with pytest.raises(ConfigError, match=message):
        from_mapping(Settings, mapping, "risk")


def test_what_takes_no_options_says_so():
    with pytest.raises(ConfigError, match=r"^loss: unknown key 'a'\. It takes no options\.$"):
        from_mapping(Nothing, {"a": 1}, "loss")


def test_known_keys_pass_the_check():
    check_keys({"a": 1}, iter(["a", "b"]), "x")
    check_keys({}, [], "x")


def test_nearest_prefers_a_close_name_and_lists_the_rest():
    assert nearest("clarabell", ["osqp", "clarabel"]) == " Did you mean 'clarabel'?"
    assert nearest("gurobi", ["osqp", "clarabel"]) == " Known: clarabel, osqp."


def test_lookup_finds_or_names_the_nearest():
    assert lookup({"a": 1}, "a", "loss") == 1
    with pytest.raises(ConfigError, match=r"unknown loss 'regert'\. Did you mean 'regret'\?"):
        lookup({"regret": 1, "mse": 2}, "regert", "loss")


@pytest.mark.parametrize("value", [1, 0.5, 1.0, np.float64(0.3), np.float32(0.3), np.int64(1)])
def test_numbers_of_every_kind_pass(value):
    check_number(value, "x", low=0, high=1)


@pytest.mark.parametrize("value", [3, 3.0, np.int64(3)])
def test_whole_numbers_pass(value):
    check_number(value, "x", low=3, high=3, integer=True)


@pytest.mark.parametrize(
    ("value", "bounds", "message"),
    [
        ("1e-4", {}, "expected a number, got '1e-4'"),
        (None, {}, "expected a number, got None"),
        (True, {}, "expected a number, got True"),
        (np.bool_(True), {}, "expected a number, got "),
        ([1], {}, r"expected a number, got \[1\]"),
        (math.nan, {}, "expected a number, finite, got nan"),
        (math.inf, {}, "expected a number, finite, got inf"),
        (2.5, {"integer": True}, "expected a whole number, finite, got 2.5"),
        (-1, {"low": 0}, "must be >= 0, got -1"),
        (0, {"low": 0, "open_low": True}, "must be > 0, got 0"),
        (2, {"high": 1}, "must be <= 1, got 2"),
        (2, {"low": 0, "high": 1}, "must be >= 0 and <= 1, got 2"),
    ],
)
def test_what_is_no_such_number_is_refused(value, bounds, message):
    with pytest.raises(ConfigError, match=f"^gamma: {message}"):
        check_number(value, "gamma", **bounds)


def test_a_setting_can_be_caught_as_the_packages_error_or_as_a_value_error():
    assert issubclass(ConfigError, BPQPError) and issubclass(ConfigError, ValueError)
