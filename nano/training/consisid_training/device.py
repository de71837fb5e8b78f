"""Where the large networks are trained: on an NVIDIA GPU where there is one. The small ones wait for drawing anyway."""

from __future__ import annotations

import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def half() -> torch.autocast:
    """Matrix products in bfloat16 on `DEVICE`."""
    return torch.autocast(DEVICE.type, torch.bfloat16)
