"""A training run on disk after its last finished epoch: tensors and plain values, no pickle."""

from __future__ import annotations

import hashlib
import io
import logging
from pathlib import Path
from typing import Any

import torch

from ..files.atomic import replacing_file
from ..files.cache import ELSEWHERE

logger = logging.getLogger(__name__)

_DIGEST_SIZE = hashlib.sha256().digest_size


def save_checkpoint(path: Path, key: str, **content: Any) -> None:
    """Write ``content`` under ``key``, atomically: an interruption leaves the previous one.

    ``content`` holds tensors and plain values; the file begins with their SHA-256.

    Raises
    ------
    StorageError
        The disk is full or not writable.
    """
    buffer = io.BytesIO()
    torch.save({"key": key, **content}, buffer)
    packed = buffer.getvalue()
    with replacing_file(path, elsewhere=ELSEWHERE) as scratch:
        scratch.write_bytes(hashlib.sha256(packed).digest() + packed)


def load_checkpoint(path: Path, key: str) -> dict[str, Any] | None:
    """The content saved under ``key``; None where there is none, or a damaged or foreign one."""
    if not path.is_file():
        return None
    raw = path.read_bytes()
    digest, packed = raw[:_DIGEST_SIZE], raw[_DIGEST_SIZE:]
    # torch.load does not check its archive: flipped bits would go unnoticed into the weights.
    if hashlib.sha256(packed).digest() != digest:
        logger.warning("checkpoint %s is damaged; training starts anew", path)
        return None
    content = torch.load(io.BytesIO(packed), weights_only=True, map_location="cpu")
    if content["key"] != key:
        logger.warning("checkpoint %s belongs to another run; training starts anew", path)
        return None
    return content
