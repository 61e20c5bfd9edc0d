"""Networks that map the features of name-days to scores: plain nn.Modules, no training code.

Start at ``base.py``, the signature that all keep to; ``decision.py`` adds heads for risk and signal
scale, ``ensemble.py`` averages networks; a network is a file and a line in ``registry.py``.
"""

from .alstm import ALSTM
from .base import Predictor, PredictorOutput
from .decision import DecisionNetwork, RiskHeadConfig
from .ensemble import Ensemble
from .gru import GRU
from .mlp import MLP
from .registry import PREDICTORS, build_network, build_predictor
from .transformer import Transformer

__all__ = [
    "ALSTM",
    "GRU",
    "MLP",
    "PREDICTORS",
    "DecisionNetwork",
    "Ensemble",
    "Predictor",
    "PredictorOutput",
    "RiskHeadConfig",
    "Transformer",
    "build_network",
    "build_predictor",
]
