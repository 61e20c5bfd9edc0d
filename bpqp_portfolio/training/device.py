"""Where a training runs: a device by name, and how much of a panel is put there."""

from __future__ import annotations

import torch

from ..data.features.panel import DailyPanel
from ..errors import ConfigError

AUTO = "auto"
# Share of the device's free memory that a panel may take; steps need the rest.
_SHARE = 0.6


def resolve_device(name: str) -> torch.device:
    """``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:1`` as a device.

    Raises
    ------
    ConfigError
        A name that is none of these, or a GPU that is not there.
    """
    if name == AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device: {name!r} is not known; use auto, cpu, cuda or cuda:<number>.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device: {name!r} is asked for, and torch sees {torch.cuda.device_count()} CUDA "
            "devices; use auto or cpu, or install a torch that supports your GPU."
        )
    return device


def placed(panel: DailyPanel, device: torch.device) -> DailyPanel:
    """The panel on ``device`` if it fits there; otherwise as it is, for moving batches."""
    if device.type != "cuda":
        return panel
    free, _ = torch.cuda.mem_get_info(device)
    return panel.to(device) if panel.nbytes <= _SHARE * free else panel
