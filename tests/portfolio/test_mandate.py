"""Mandates: behaviour, agreement with Clarabel, configuration and what binds."""

from __future__ import annotations

import doctest
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mandate_cases import EXAMPLES, best, market, optima

from bpqp_portfolio.errors import ConfigError, ProblemError, SolverError
from bpqp_portfolio.portfolio.mandate.mandate import Mandate, Market
from bpqp_portfolio.portfolio.mandate.terms import CONSTRAINTS, COSTS

GAMMA = 5.0


def solve(config, data=None, **more):
    return Mandate.from_config({"risk_aversion": GAMMA, **config, **more}).solve(
        Market(**(data or market()))
    )


def moved(solution, data):
    return 0.5 * (solution.w - data["previous"]).abs().sum(-1)


def error(w, data):
    e = w - data["benchmark"]
    x = (data["loadings"] * e.unsqueeze(-1)).sum(-2)
    return ((x * x).sum(-1) + (data["specific"] * e * e).sum(-1)).sqrt() * 252**0.5


def test_a_tighter_turnover_limit_trades_less():
    data = market()
    traded = [moved(solve({"max_turnover": limit}, data), data) for limit in (0.4, 0.2, 0.1, 0.0)]
    for limit, own in zip((0.4, 0.2, 0.1, 0.0), traded, strict=True):
        assert (own <= limit + 1e-9).all()
    for loose, tight in itertools.pairwise(traded):
        assert (tight < loose).all()


def test_a_higher_cost_trades_less():
    data = market()
    costs = ({"buy": c, "sell": 2 * c, "minimum": 0} for c in (0.0, 0.0004, 0.001, 0.05))
    traded = [moved(solve({"costs": cost}, data), data) for cost in costs]
    for cheap, dear in itertools.pairwise(traded):
        assert (dear <= cheap + 1e-9).all()
    assert (traded[1] < traded[0]).all() and (traded[-1] < 1e-9).all()


def test_a_wider_box_never_worsens_the_objective():
    values = [solve({"max_weights": u}).objective for u in (0.1, 0.15, 0.3, 1.0)]
    for narrow, wide in itertools.pairwise(values):
        assert (wide <= narrow + 1e-12).all()
    assert (values[-1] < values[0]).all()


def test_group_bounds_hold_to_1e_9():
    data = market()
    s = solve({"groups": {"limit": 0.3, "lower": {"banks": 0.25}}}, data)
    for code in range(4):
        total = (s.w * (data["groups"] == code)).sum(-1)
        assert (total <= 0.3 + 1e-9).all()
    assert ((s.w * (data["groups"] == 0)).sum(-1) >= 0.25 - 1e-9).all()


def test_exposure_bounds_hold_to_1e_9_and_an_empty_one_is_none():
    data = market()
    free = solve({}, data).w
    exposure = (data["exposures"][..., 0] * (free - data["benchmark"])).sum(-1)
    bounds = {"limit": {"size": 0.05}, "lower": {"size": None}, "relative": True}
    w = solve({"exposures": bounds}, data).w
    kept = (data["exposures"][..., 0] * (w - data["benchmark"])).sum(-1)
    assert (kept <= 0.05 + 1e-9).all() and (exposure > 0.05).any()
    inside = exposure < 0.05 - 1e-6
    assert inside.any()
    torch.testing.assert_close(w[inside], free[inside], atol=1e-8, rtol=0)


@pytest.mark.parametrize("limit", [0.06, 0.03, 0.01])
def test_tracking_error_is_below_its_limit(limit):
    data = market()
    s = solve({"max_tracking_error": limit, "max_turnover": 0.4}, data)
    assert (error(s.w, data) <= limit * (1 + 1e-9)).all()
    assert torch.allclose(error(s.w, data), s.value[:, -1], rtol=1e-9)


def test_permuting_names_permutes_weights():
    data = market()
    config = {"max_weights": 0.2, "groups": 0.4, "max_turnover": 0.3, "max_tracking_error": 0.05}
    order = torch.randperm(data["mu"].shape[1], generator=torch.Generator().manual_seed(3))
    other = {
        k: v[:, order] if isinstance(v, torch.Tensor) and v.ndim > 1 else v for k, v in data.items()
    }
    assert torch.allclose(solve(config, other).w, solve(config, data).w[:, order], atol=1e-8)


def test_names_that_cannot_trade_stay():
    data = market()
    flags = torch.zeros_like(data["mask"])
    for key, place in (("pinned", 0), ("no_buy", 1), ("no_sell", 2)):
        data[key] = flags.clone()
        data[key][:, 3 * place : 3 * place + 3] = True
    held = data["previous"]
    for config in ({"max_weights": 0.3}, {"max_weights": 0.3, "max_turnover": 0.3}):
        w = solve(config, data).w
        assert torch.allclose(w[:, :3], held[:, :3], atol=1e-15)
        assert (w[:, 3:6] <= held[:, 3:6] + 1e-15).all()
        assert (w[:, 6:9] >= held[:, 6:9] - 1e-15).all()


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_a_registered_term_prints_itself_solves_and_agrees_with_clarabel(name):
    config, data = {"risk_aversion": GAMMA, **EXAMPLES[name]}, market()
    mandate = Mandate.from_config(config)
    assert name.split("_")[-1] in str(mandate)
    s = mandate.solve(Market(**data))
    assert (s.codes == 0).all()
    assert s.objective.tolist() == pytest.approx(best(config, data), abs=2e-8)
    for day in range(len(s.w)):
        assert mandate.explain(s, day)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    st.integers(0, 10**6),
    st.fixed_dictionaries(
        {},
        optional={
            "max_weights": st.sampled_from([0.15, 0.3]),
            "groups": st.sampled_from([0.4, 0.6]),
            "max_turnover": st.sampled_from([0.3, 0.5]),
            "max_tracking_error": st.sampled_from([0.08, 0.15]),
            "linear_cost": st.just({"buy": 0.0005, "sell": 0.0015}),
            "quadratic_cost": st.just(0.01),
            "budget": st.sampled_from([1.0, 0.97]),
        },
    ),
)
def test_random_mandates_agree_with_clarabel(seed, config):
    data = market(T=1, seed=seed)
    agrees(config, data)


def agrees(config, data):
    """Status, value and weights are Clarabel's; its weights are good to 1e-7 where a cone binds,
    since the value, good to 1e-12, is flat to second order around them."""
    ((value, w),) = optima({"risk_aversion": GAMMA, **config}, data)
    s = solve(config, data, on_failure=["hold"])
    if w is None:
        assert int(s.codes[0]) == 2 and "cannot" in s.reason[0]
    else:
        assert int(s.codes[0]) == 0
        assert float(s.objective[0]) == pytest.approx(value, abs=1e-10)
        assert torch.allclose(s.w[0], w, atol=2e-6)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.integers(0, 10**6),
    st.sampled_from([1.0, 1.3, 1.7]),
    st.sampled_from([-0.1, -0.3]),
    st.fixed_dictionaries(
        {},
        optional={
            "market_neutral": st.just(True),
            "max_weights": st.sampled_from([0.15, 0.3]),
            "groups": st.sampled_from([0.2, 0.4]),
            "max_turnover": st.sampled_from([0.5, 0.8]),
            "max_tracking_error": st.sampled_from([0.15, 0.3]),
            "linear_cost": st.just({"buy": 0.0005, "sell": 0.0015}),
            "quadratic_cost": st.just(0.01),
            "kappa": st.sampled_from([0.02, 0.05]),
        },
    ),
)
def test_random_long_short_mandates_agree_with_clarabel(seed, leverage, low, config):
    if "kappa" in config:
        config = {**config, "objective": "robust"}
    config = {**config, "max_leverage": leverage, "min_weights": low}
    agrees(config, market(T=1, seed=seed))


@pytest.mark.parametrize("limit", [0.1, 0.03, 0.015])
@pytest.mark.parametrize("kappa", [0.02, 0.2])
def test_a_tracking_limit_goes_with_the_robust_objective(limit, kappa):
    config = {"objective": "robust", "kappa": kappa, "max_tracking_error": limit}
    for seed in range(3):
        agrees({**config, "max_weights": 0.3}, market(T=1, seed=seed))
        agrees({**config, "max_turnover": 0.4}, market(T=1, seed=seed))


def test_leverage_is_kept_and_priced():
    data, h = market(), 1e-5
    config = {"min_weights": -0.3, "max_turnover": 0.6, "max_leverage": 1.2}
    s = solve(config, data)
    assert (s.w.abs().sum(-1) <= 1.2 + 1e-9).all() and (s.w < 0).any(-1).all()
    up, down = (solve({**config, "max_leverage": 1.2 + d}, data).objective for d in (h, -h))
    column = s.labels.index("max_leverage 1.2")
    assert (s.dual[:, column] > 0).all()
    assert torch.allclose(s.dual[:, column], (down - up) / (2 * h), rtol=1e-3, atol=1e-9)


def test_a_robust_neutral_mandate_that_nothing_pays_for_holds_nothing():
    config = {"objective": "robust", "kappa": 10.0, "market_neutral": True, "min_weights": -0.2}
    s = solve({**config, "max_leverage": 1.0})
    assert (s.w.abs() < 1e-9).all() and set(s.solver) == {"cones"}


@pytest.mark.parametrize("objective", ["minimum_variance", "maximum_utility", "robust"])
def test_objectives_agree_with_clarabel(objective):
    config = {"objective": objective, "risk_aversion": GAMMA, "max_weights": 0.3}
    if objective == "robust":
        config["kappa"] = 0.1
    s = Mandate.from_config(config).solve(Market(**market()))
    assert (s.codes == 0).all()
    assert s.objective.tolist() == pytest.approx(best(config, market()), abs=2e-8)


def test_the_dual_is_the_return_of_one_more_unit():
    data, h = market(), 1e-5
    for config, name in (
        ({"max_turnover": 0.1}, "max_turnover"),
        ({"max_tracking_error": 0.03}, "max_tracking_error"),
    ):
        s = solve(config, data)
        up, down = (solve({name: config[name] + d}, data).objective for d in (h, -h))
        assert torch.allclose(s.dual[:, -1], (down - up) / (2 * h), rtol=1e-3, atol=1e-9)


def test_float32_in_float32_out():
    data = market()
    single = {
        k: v.float() if isinstance(v, torch.Tensor) and v.dtype == torch.float64 else v
        for k, v in data.items()
    }
    assert solve({"max_turnover": 0.2}, single).w.dtype == torch.float32


def test_long_only_is_known():
    assert Mandate.from_config({"max_weights": 0.1}).long_only
    for config in ({"min_weights": -0.1}, {"budget": 1.2}, {"long_only": False}):
        assert not Mandate.from_config(config).long_only


@pytest.mark.parametrize(
    "config, words",
    [
        ({"max_turnovr": 0.1}, "max_turnover"),
        ({"constraints": {"max_weigths": 0.1}}, "max_weights"),
        ({"objective": "mean_varance"}, "mean_variance"),
        ({"on_failure": ["holdd"]}, "hold"),
        ({"max_weights": "much"}, "expected a number"),
        ({"exposures": {"lower": {"size": "low"}}}, r"exposures\.lower\.size: expected a number"),
        ({"market_neutral": False}, "leave it out"),
        ({"on_failure": [{"relax": ["groups"]}]}, "groups"),
        ({"max_tracking_error": {"limit": 0.1, "days": 252}}, "days_per_year"),
    ],
)
def test_bad_settings_are_named(config, words):
    with pytest.raises(ConfigError, match=words):
        Mandate.from_config(config)


@pytest.mark.parametrize(
    "config, words",
    [
        (
            {"max_weights": 0.1, "constraints": {"max_weights": 0.25}},
            r"mandate\.max_weights is 0\.1, and mandate\.constraints\.max_weights is 0\.25: "
            "max_weights is stated twice",
        ),
        (
            {"max_weights": 0.1, "constraints": [{"max_weights": 0.1}]},
            r"mandate\.max_weights is 0\.1, and mandate\.constraints\[0\]\.max_weights is 0\.1",
        ),
        (
            {"constraints": [{"max_weights": 0.1}, "long_only", {"max_weights": 0.2}]},
            r"constraints\[0\]\.max_weights is 0\.1, and mandate\.constraints\[2\]\.max_weights "
            r"is 0\.2",
        ),
        (
            {"costs": [{"quadratic_cost": 1.0}, {"quadratic_cost": 2.0}]},
            r"costs\[0\]\.quadratic_cost is 1\.0, and mandate\.costs\[1\]\.quadratic_cost is 2\.0",
        ),
        (
            {"quadratic_cost": 1.0, "costs": {"quadratic_cost": 2.0}},
            r"mandate\.quadratic_cost is 1\.0, and mandate\.costs\.quadratic_cost is 2\.0",
        ),
        (
            {"costs": [{"buy": 0.1, "sell": 0.1, "minimum": 0}, {"sell": 0.2}]},
            r"costs\[0\]\.sell is 0\.1, and mandate\.costs\[1\]\.sell is 0\.2",
        ),
        ({"constraints": [{"max_weights": 0.1}, 5]}, r"constraints\[1\]: expected a name or a map"),
    ],
)
def test_a_term_is_stated_once(config, words):
    with pytest.raises(ConfigError, match=words):
        Mandate.from_config({"risk_aversion": GAMMA, **config})


def test_what_the_market_lacks_is_named():
    data = market()
    for field, config in (("benchmark", {"max_tracking_error": 0.1}), ("groups", {"groups": 0.3})):
        lacking = {**data, field: None}
        with pytest.raises(ProblemError, match=field):
            solve(config, lacking)
    with pytest.raises(ConfigError, match="banks"):
        solve({"groups": {"bank": 0.3}}, data)


def test_an_infeasible_day_names_the_constraints_that_contradict():
    with pytest.raises(SolverError, match=r"max_turnover 0.02 cannot meet .*groups: banks <= 0.1"):
        solve({"max_turnover": 0.02, "groups": {"banks": 0.1}})


def test_public_names_and_the_docstrings_example():
    import bpqp_portfolio as bp
    import bpqp_portfolio.portfolio as rooms
    from bpqp_portfolio.portfolio.mandate import mandate as module

    assert bp.Mandate is Mandate and bp.Market is Market
    for cls in {**CONSTRAINTS, **COSTS}.values():
        assert getattr(rooms, cls.__name__) is cls
    results = doctest.testmod(module)
    assert results.attempted >= 8 and not results.failed


def test_a_mandate_says_what_it_relaxes():
    ways = [{"relax": ["max_turnover"], "penalty": 2.0}, "hold"]
    text = str(Mandate.from_config({"max_turnover": 0.1, "groups": 0.3, "on_failure": ways}))
    assert "if a day fails: relax max_turnover (a unit costs 2 of return), then hold" in text
