"""A training run on disk after its last finished epoch: tensors and plain values, no pickle."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import torch

from ..data.atomic import replacing_file

logger = logging.getLogger(__name__)


def save_checkpoint(path: Path, key: str, **content: Any) -> None:
    """Write ``content`` under ``key``, atomically: an interruption leaves the previous one."""
    with replacing_file(path) as scratch:
        torch.save({"key": key, **content}, scratch)


def load_checkpoint(path: Path, key: str) -> dict[str, Any] | None:
    """The content saved under ``key``; None where there is none, or a damaged or foreign one."""
    if not path.is_file():
        return None
    try:
        content = torch.load(path, weights_only=True)
        found = content["key"]
    except (OSError, RuntimeError, pickle.UnpicklingError, KeyError, TypeError, EOFError) as error:
        logger.warning("checkpoint %s is damaged (%s); training starts anew", path, error)
        return None
    if found != key:
        logger.warning("checkpoint %s belongs to another run; training starts anew", path)
        return None
    return content
