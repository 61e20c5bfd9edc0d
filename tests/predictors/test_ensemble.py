"""Several networks that score as one: a mean in which each has the same say."""

from __future__ import annotations

import pytest
import torch

from bpqp_portfolio.errors import ConfigError
from bpqp_portfolio.predictors import DecisionNetwork, Ensemble, RiskHeadConfig, build_predictor

F = 4


def member(seed: int, times: float = 1.0, name: str = "mlp", features: int = F):
    torch.manual_seed(seed)
    network = build_predictor(name, features, hidden=[6] if name == "mlp" else 6).double().eval()
    if times != 1.0:
        with torch.no_grad():
            network.layers[-1].weight *= times
            network.layers[-1].bias *= times
    return network


def rows(count: int = 50):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 1, F, dtype=torch.float64, generator=generator)


def test_alike_members_give_the_plain_mean():
    members = [member(seed) for seed in range(3)]
    mean = torch.stack([m(rows()) for m in members]).mean(0)
    assert torch.allclose(Ensemble(members)(rows()), mean, rtol=0, atol=1e-15)


def test_a_loud_member_does_not_outvote_the_others():
    """Ten times the scores with ten times the spread is the same vote; the unit is the mean's."""
    calm = [member(0), member(1)]
    loud = [member(0), member(1, times=10.0)]
    one = Ensemble(calm, torch.tensor([2.0, 2.0]))(rows())
    other = Ensemble(loud, torch.tensor([2.0, 20.0]))(rows())
    assert torch.allclose(other, one * 11 / 2, rtol=1e-12)


def test_a_single_member_scores_as_it_would_alone():
    only = member(3)
    assert torch.equal(Ensemble([only], torch.tensor([0.7]))(rows()), only(rows()))


def test_its_state_has_members_and_spread():
    whole = Ensemble([member(0), member(1)], torch.tensor([1.0, 3.0]))
    again = Ensemble([member(5), member(6)]).double()
    again.load_state_dict(whole.state_dict())
    assert torch.equal(again.eval()(rows()), whole.eval()(rows()))


def test_members_that_do_not_match_are_refused():
    with pytest.raises(ConfigError, match="members"):
        Ensemble([])
    with pytest.raises(ConfigError, match="same features and window"):
        Ensemble([member(0), member(1, features=F + 1)])
    with pytest.raises(ConfigError, match="same features and window"):
        Ensemble([member(0), member(1, name="gru")])


@pytest.mark.parametrize("spread", [[1.0], [1.0, 0.0], [1.0, float("nan")], [1.0, -2.0]])
def test_a_spread_that_is_not_positive_is_refused(spread):
    with pytest.raises(ConfigError, match="2 positive numbers"):
        Ensemble([member(0), member(1)], torch.tensor(spread))


def test_of_plain_members_nothing_is_said_but_scores():
    whole = Ensemble([member(0), member(1)], torch.tensor([1.0, 3.0])).eval()
    said = whole.predictor_output(rows(), torch.tensor([20, 30]))
    assert torch.equal(said.scores, whole(rows())) and said[1:] == (None, None, None)
    assert whole.log_kappa is None


def test_what_members_say_of_the_risk_is_averaged_in_logs():
    networks = []
    for seed, size in ((0, 0.1), (1, -0.3)):
        network = DecisionNetwork(member(seed), RiskHeadConfig(), 2, True).double().eval()
        for part in (network.specific.bias, network.factors.bias, network.kappa):
            torch.nn.init.constant_(part, size)
        networks.append(network)
    whole, counts = Ensemble(networks), torch.tensor([20, 30])
    said, own = (
        whole.predictor_output(rows(), counts),
        [n.predictor_output(rows(), counts) for n in networks],
    )
    for name in ("log_specific", "log_factors", "log_kappa"):
        mean = (getattr(own[0], name) + getattr(own[1], name)) / 2
        torch.testing.assert_close(getattr(said, name), mean, rtol=0, atol=1e-15)
    assert said.log_kappa == whole.log_kappa and abs(said.log_kappa.item() + 1.0) < 1e-12
