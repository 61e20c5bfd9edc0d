"""LightGBM's parameters are checked before any work: it would drop a misspelt one in silence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from bpqp_portfolio.errors import ConfigError
from bpqp_portfolio.qlib_ext.preflight import check_component

GBDT = {"class": "LGBModel", "module_path": "qlib.contrib.model.gbdt"}
FLOW = Path(__file__).parents[2] / "workflows" / "lightgbm_csi300.yaml"


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_leafs": 210}, "'num_leafs'. Did you mean 'num_leaf'?"),
        ({"lamda_l1": 1.0}, "'lamda_l1'. Did you mean 'lambda_l1'?"),
        ({"Max_depth": 3}, "'Max_depth'. Did you mean 'max_depth'?"),
        ({"num_boost_rounds": 3}, "'num_boost_rounds'. Did you mean 'num_boost_round'?"),
        ({"max_depth": "eight"}, 'max_depth should be of type int, got "eight"'),
        ({"learning_rate": -1}, "(learning_rate) > (0.0)."),
        ({"learning_rate": "x"}, "Unknown token x"),
        ({"num_leaves": 210.5}, "num_leaves"),
        ({"subsample": 1.5}, "(bagging_fraction) <= (1.0)."),
        ({"boosting": "dartt"}, "dartt"),
        ({"loss": "msee"}, "LGBModel.loss: 'msee' is not mse or binary."),
        ({"num_boost_round": 0}, "LGBModel.num_boost_round: must be >= 1"),
        ({"early_stopping_rounds": 2.5}, "LGBModel.early_stopping_rounds"),
    ],
)
def test_a_parameter_that_lightgbm_would_drop_or_refuse_is_named(kwargs, message):
    with pytest.raises(ConfigError, match="^task.model: .*" + re.escape(message)):
        check_component({**GBDT, "kwargs": kwargs}, "task.model")


def test_those_of_the_workflow_and_aliases_are_accepted():
    said = yaml.safe_load(FLOW.read_text(encoding="utf-8"))["task"]["model"]["kwargs"]
    kwargs = {name: value for name, value in said.items() if value != "__DROP__"}
    check_component({**GBDT, "kwargs": {**kwargs, "reg_alpha": 0.1, "n_jobs": 1}}, "task.model")
