"""Where the large networks are trained: on an NVIDIA GPU where there is one. The small ones wait for drawing anyway."""

from __future__ import annotations

import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def half(device: torch.device | str = DEVICE) -> torch.autocast:
    """Matrix products in bfloat16 on `device`, in float32 on CPUs without AVX-512's instructions for it.

    Those only imitate it: linear layers took 8 and batched products 30 times as long (AMD EPYC with AVX2).
    """
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=kind != "cpu" or torch.cpu._is_avx512_bf16_supported())
