"""The differentiable layers: a general QP, and the batched factor-model QP."""

from .qp import QPLayer

__all__ = ["QPLayer"]
