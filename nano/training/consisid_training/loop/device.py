"""Selects the device of the large networks, a GPU if available. The small ones use the CPU: drawing limits them."""

from __future__ import annotations

import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: torch.device | str = DEVICE) -> torch.autocast:
    """Compute matrix products in bfloat16 on `device`, in float32 on CPUs without AVX-512's bfloat16 instructions.

    Such CPUs emulate bfloat16: linear layers took 8 and batched products 30 times as long (AMD EPYC with AVX2).
    """
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=kind != "cpu" or torch.cpu._is_avx512_bf16_supported())
