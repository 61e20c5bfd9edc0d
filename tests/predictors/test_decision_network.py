"""A network that says more than scores: zero at first, bounded, blind to the order of names."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bpqp_portfolio.errors import ConfigError, DataError
from bpqp_portfolio.predictors import PREDICTORS, DecisionNetwork, RiskHeadConfig, build_predictor

F, K = 5, 3
COUNTS = torch.tensor([4, 2, 6])
ROWS = int(COUNTS.sum())
ALL = pytest.mark.parametrize("name", PREDICTORS)


def plain(name="mlp", **options):
    torch.manual_seed(0)
    return build_predictor(name, F, **options)


def build(name="mlp", risk=None, learn_kappa=True, **options):
    head = RiskHeadConfig() if risk is None else risk
    return DecisionNetwork(plain(name, **options), head, K, learn_kappa).double().eval()


def stirred(network, size=1.0, seed=0):
    """``network`` with random heads, as if it had been trained."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in (network.specific, network.factors):
            for parameter in layer.parameters():
                parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
    return network


def inputs(name="mlp", seed=1):
    generator = torch.Generator().manual_seed(seed)
    shape = ROWS, PREDICTORS[name].window, F
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@ALL
def test_it_begins_with_the_predictors_scores_and_nothing_else(name):
    features = inputs(name)
    said = build(name).predictor_output(features, COUNTS)
    assert torch.equal(said.scores, plain(name).double().eval()(features))
    assert said.log_specific.shape == (ROWS,) and said.log_factors.shape == (3, K)
    for part in (said.log_specific, said.log_factors, said.log_kappa):
        assert part.dtype == torch.float64 and not part.any()


@ALL
def test_a_plain_predictor_says_scores_alone(name):
    network, features = plain(name).double().eval(), inputs(name)
    said = network.predictor_output(features, COUNTS)
    assert torch.equal(said.scores, network(features)) and said[1:] == (None, None, None)


@ALL
def test_every_head_has_a_gradient_at_once(name):
    network = build(name)
    said = network.predictor_output(inputs(name), COUNTS)
    (said.log_specific @ torch.linspace(-1, 2, ROWS).double()).backward(retain_graph=True)
    assert (network.specific.weight.grad != 0).double().mean() > 0.5
    said.log_factors[0, 0].backward(retain_graph=True)
    assert network.factors.weight.grad[0].abs().max() > 0
    assert not network.factors.weight.grad[1:].any()
    said.log_kappa.backward()
    assert network.kappa.grad == 10.0


@ALL
def test_the_order_of_names_does_not_matter(name):
    network, features = stirred(build(name)), inputs(name)
    said = network.predictor_output(features, COUNTS)
    generator = torch.Generator().manual_seed(2)
    starts = [0, *COUNTS.cumsum(0).tolist()[:-1]]
    order = torch.cat(
        [
            s + torch.randperm(int(n), generator=generator)
            for s, n in zip(starts, COUNTS, strict=True)
        ]
    )
    assert not torch.equal(order, torch.arange(ROWS))
    other = network.predictor_output(features[order], COUNTS)
    torch.testing.assert_close(other.scores, said.scores[order])
    torch.testing.assert_close(other.log_specific, said.log_specific[order])
    torch.testing.assert_close(other.log_factors, said.log_factors)


@ALL
def test_days_do_not_see_one_another(name):
    network, features = stirred(build(name), 0.05), inputs(name)
    said = network.predictor_output(features, COUNTS)
    first, second = int(COUNTS[0]), int(COUNTS[0] + COUNTS[1])
    alone = network.predictor_output(features[first:second], COUNTS[1:2])
    close = {"rtol": 0, "atol": 1e-14}
    torch.testing.assert_close(alone.log_specific, said.log_specific[first:second], **close)
    torch.testing.assert_close(alone.log_factors[0], said.log_factors[1], **close)
    assert (said.log_factors[0] - said.log_factors[1]).abs().min() > 1e-6


@settings(deadline=None, max_examples=30)
@given(limit=st.floats(0.01, 5), size=st.floats(0, 1e6), seed=st.integers(0, 99))
def test_what_it_says_of_risk_is_bounded(limit, size, seed):
    network = stirred(build(risk=RiskHeadConfig(limit=limit), hidden=[4]), size, seed)
    said = network.predictor_output(inputs(seed=seed), COUNTS)
    for part in said[1:3]:
        assert part.isfinite().all() and part.abs().max() <= limit


@pytest.mark.parametrize(("specific", "factors"), [(True, False), (False, True)])
def test_either_head_may_be_left_out(specific, factors):
    network = DecisionNetwork(plain(), RiskHeadConfig(specific, factors), K).double().eval()
    said = network.predictor_output(inputs(), COUNTS)
    assert (said.log_specific is not None) == specific
    assert (said.log_factors is not None) == factors
    assert said.log_kappa is None
    keys = {key.partition(".")[0] for key in network.state_dict()}
    assert keys == {"predictor", "specific" if specific else "factors"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"specific": "yes"}, "specific: expected true or false"),
        ({"factors": 1}, "factors: expected true or false"),
        ({"specific": False, "factors": False}, "leave the block out"),
        ({"limit": 0.0}, "limit: must be > 0"),
        ({"limit": float("inf")}, "limit: expected a number, finite"),
    ],
)
def test_settings_outside_their_range(config, message):
    with pytest.raises(ConfigError, match=message):
        RiskHeadConfig(**config)


def test_features_of_another_shape_are_refused():
    with pytest.raises(DataError, match=r"must be \(R, L, 5\)"):
        build().predictor_output(inputs()[..., :3], COUNTS)
