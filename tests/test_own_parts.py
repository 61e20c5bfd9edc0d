"""Parts of the user's own by class and module: every registry takes them and names a fault."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from own_parts import RISK_AND_SCORES

from bpqp_portfolio.config import build, load_own_parts, own_parts, resolve
from bpqp_portfolio.errors import ConfigError
from bpqp_portfolio.losses import build_loss
from bpqp_portfolio.portfolio import Mandate, Market
from bpqp_portfolio.portfolio.policies import build_policy
from bpqp_portfolio.portfolio.problem import PortfolioProblem
from bpqp_portfolio.portfolio.scores import build_normalisation
from bpqp_portfolio.predictors import build_predictor
from bpqp_portfolio.risk import RiskConfig, build_risk_model

SOURCE = (
    """
import dataclasses
import numpy as np
from torch import nn
from bpqp_portfolio.errors import ConfigError
from bpqp_portfolio.losses import LossTerms
from bpqp_portfolio.portfolio.policies.equal_weight import EqualWeight
from bpqp_portfolio.portfolio.mandate.terms import MaxWeights, QuadraticCost
from bpqp_portfolio.predictors import Predictor


class HalfCap(MaxWeights):
    name = "half_cap"

    def __post_init__(self):
        object.__setattr__(self, "limit", self.limit / 2)


class Fee(QuadraticCost):
    name = "fee"


class Linear(Predictor):
    window = 1

    def __init__(self, features, scale=1.0):
        super().__init__(features)
        if scale <= 0:
            raise ConfigError(f"scale: must be above 0, got {scale}.")
        self.scale, self.width = scale, features
        self.head = nn.Linear(features, 1)

    def represent(self, features):
        return self.scale * features[:, -1]


@dataclasses.dataclass(frozen=True)
class Absolute:
    power: float = 1.0

    def __call__(self, scores, batch, problem):
        error = ((scores - batch.label).abs() ** self.power).mean(-1)
        return LossTerms(error, error, None)


class Equal(EqualWeight):
    pass


class Sign:
    def __call__(self, scores, mask):
        return scores.sign()
"""
    + RISK_AND_SCORES
)


@pytest.fixture
def own(tmp_path: Path) -> str:
    """The path of a file of own classes."""
    file = tmp_path / "desk.py"
    file.write_text(SOURCE)
    return str(file)


def spec(own: str, name: str, **kwargs: object) -> dict[str, object]:
    return {"class": name, "module_path": own, **({"kwargs": kwargs} if kwargs else {})}


def test_a_predictor_of_a_file_scores_and_takes_its_options(own):
    network = build_predictor(spec(own, "Linear", scale=3.0), 4)
    assert type(network).__name__ == "Linear" and network.scale == 3.0
    assert network(torch.ones(5, 1, 4)).shape == (5,)


def test_a_loss_of_a_file_is_built_with_its_options(own):
    assert build_loss(spec(own, "Absolute", power=2.0)).power == 2.0


def test_a_risk_model_of_a_file_estimates(own):
    model = RiskConfig(model=spec(own, "Diagonal", floor=0.5), factors=2).model
    loadings, specific = build_risk_model(model, 2).estimate(np.ones((9, 3)))
    assert loadings.shape == (3, 2) and (specific == 0.5).all()


def test_a_policy_and_a_normalisation_of_a_file_decide(own):
    problem = PortfolioProblem(
        {"decision": spec(own, "Equal"), "normalisation": spec(own, "halved", by=4.0)}
    )
    assert type(problem.policy).__name__ == "Equal"
    mask = torch.ones(1, 3, dtype=torch.bool)
    scores = torch.tensor([[4.0, -8.0, 2.0]])
    assert problem.forecast(scores, mask).tolist() == [[1.0, -2.0, 0.5]]
    assert build_normalisation(spec(own, "Sign"))(scores, mask).tolist() == [[1.0, -1.0, 1.0]]


@pytest.mark.parametrize("as_list", [False, True], ids=["mapping", "list"])
def test_constraints_and_costs_of_a_file_enter_the_mandate(own, as_list):
    cap, fee = spec(own, "HalfCap", limit=0.8), spec(own, "Fee", limit=0.1)
    block = {
        "constraints": [{"long_only": True}, cap] if as_list else {"long_only": True, "mine": cap},
        "costs": [fee] if as_list else {"mine": fee},
    }
    mandate = Mandate.from_config(block)
    assert {term.name for term in mandate.terms} == {"long_only", "half_cap", "fee"}
    B, d = torch.zeros(1, 3, 1).double(), torch.full((1, 3), 0.01).double()
    mu = torch.tensor([[0.9, 0.0, -0.1]]).double()
    mask = torch.ones(1, 3, dtype=torch.bool)
    w = mandate.solve(Market(mu, B, d, mask)).w
    assert w[0].max() == pytest.approx(0.4, abs=1e-9) and w.sum() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("block", "name", "message"),
    [
        ("constraints", "Linear", "constraint 'Linear': missing|is no Term"),
        ("costs", "HalfCap", "cost: half_cap is none; move it to the other block"),
        ("constraints", "Fee", "constraint: fee is none; move it to the other block"),
    ],
)
def test_what_is_no_term_is_named(own, block, name, message):
    given = {"HalfCap": {"limit": 0.5}, "Fee": {"limit": 0.1}}.get(name, {})
    with pytest.raises(ConfigError, match=message):
        Mandate.from_config({block: {"mine": spec(own, name, **given)}})


def test_a_module_of_the_path_will_do(own, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(own).parent))
    assert build_loss({"class": "Absolute", "module_path": "desk"}).power == 1.0
    sys.modules.pop("desk")


def test_a_file_is_run_once_and_again_when_it_has_changed(own):
    first = resolve(spec(own, "Linear"), {}, "predictor")[0]
    assert resolve(spec(own, "Linear"), {}, "predictor")[0] is first
    Path(own).write_text(SOURCE + "\nLinear.marked = True\n")
    assert resolve(spec(own, "Linear"), {}, "predictor")[0].marked


def network(own: str, name: str, **kwargs: object) -> object:
    return build_predictor(spec(own, name, **kwargs), 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda own: network(own, "Linaer"), r"no class 'Linaer' in .*desk\.py\. Did .* 'Linear'"),
        (lambda own: network(own, "Absolute"), "predictor 'Absolute': is no subclass of"),
        (lambda own: network(own, "Linear", scael=1), "'Linear': unknown key 'scael'. Did .*scale"),
        (lambda own: network(own, "Linear", scale=-1), "predictor 'Linear': scale: must be above"),
        (lambda own: build_loss(spec(own, "Absolute", pwer=1)), "'Absolute': unknown key 'pwer'"),
        (lambda own: build_loss({"class": "Absolute"}), "loss: .*'module_path' is None"),
        (lambda own: build_loss({"module_path": own}), "loss: .*'class' is None"),
        (lambda own: build_loss({**spec(own, "Absolute"), "p": 2}), "loss: unknown key 'p'"),
        (lambda own: build_loss({"beta": 1}), "loss: 'name' is missing"),
        (lambda own: build_loss(3), "loss: expected a name or a mapping, got 3"),
        (lambda own: build_loss(spec(own + ".py", "Absolute")), r"loss: no file .*desk\.py\.py"),
        (lambda own: build_loss(spec("no.such", "A")), "'no.such' cannot be imported .*PYTHONPATH"),
        (lambda own: RiskConfig(model=spec(own, "Linear")), "model 'Linear': has no `estimate`"),
        (lambda own: build_policy(spec(own, "Absolute")), "'Absolute': .* need a `penalty`"),
        (lambda own: build_normalisation(spec(own, "halved", to=1)), "'halved': unknown key 'to'"),
        (lambda own: build(spec(own, "Diagonal"), {}, "risk"), "'Diagonal': missing a required"),
    ],
)
def test_what_is_wrong_with_an_own_part_is_named(own, make, message):
    with pytest.raises(ConfigError, match=message):
        make(own)


def test_a_file_that_cannot_be_read_as_python_is_named(tmp_path):
    (tmp_path / "broken.py").write_text("def f(:\n")
    with pytest.raises(ConfigError, match=r"loss: module_path .*broken\.py.*SyntaxError"):
        build_loss(spec(str(tmp_path / "broken.py"), "F"))


def test_own_parts_are_found_wherever_they_stand_with_the_digest_of_their_file(own):
    shipped = {"class": "MLP", "module_path": "bpqp_portfolio.predictors.mlp"}
    config = {"model": {"predictor": spec(own, "Linear")}, "record": [spec(own, "Equal"), shipped]}
    found = own_parts(config)
    assert [one["class"] for one in found] == ["Linear", "Equal", "MLP"]
    assert [len(one["sha256"]) for one in found] == [64, 64, 0]
    load_own_parts(config, found, "run")


def test_a_class_that_was_not_listed_is_refused_before_its_file_is_run(own, tmp_path):
    listed = own_parts(spec(own, "Linear"))
    (tmp_path / "evil.py").write_text("raise SystemExit('was run')\n")
    for evil in (spec(str(tmp_path / "evil.py"), "Linear"), spec("os", "system")):
        with pytest.raises(ConfigError, match=f"run names the class {evil['class']} of .*not list"):
            load_own_parts({"predictor": evil}, listed, "run")


def test_a_file_that_has_changed_since_is_refused(own):
    listed = own_parts(spec(own, "Linear"))
    Path(own).write_text("raise SystemExit('was run')\n")
    with pytest.raises(ConfigError, match=r"desk\.py, where its class Linear lives, has changed"):
        load_own_parts(spec(own, "Linear"), listed, "run")
