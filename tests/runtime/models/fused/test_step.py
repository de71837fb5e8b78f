"""The step on fused operators is the step."""

import copy
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.onnx.samples import seeded_samples
from consisid_export.verify.module import FP32_LIMIT, relative_error
from consisid_kernels import reference
from consisid_runtime.models import networks
from consisid_runtime.models.fused.step import FusedStep


@pytest.mark.parametrize("transformer", [{}, {"cross_attn_interval": 1}, {"attention_bias": False}], ids=str)
def test_it_computes_what_the_step_does(checkpoint_of: Callable[..., Path], transformer: dict[str, Any]) -> None:
    checkpoint = Checkpoint.open(checkpoint_of(**transformer))
    step = networks.load("dit_step", checkpoint)
    fused = FusedStep(copy.deepcopy(step), reference)  # type: ignore[arg-type]
    for inputs in seeded_samples(networks.signatures(checkpoint)["dit_step"]):
        with torch.no_grad():
            (wanted,), (found,) = step(*inputs.values()), fused(*inputs.values())
        assert relative_error(found, wanted) <= FP32_LIMIT


def test_every_norm_keeps_its_own_eps(untrained: Path) -> None:
    checkpoint = Checkpoint.open(untrained)
    step = networks.load("dit_step", checkpoint)
    kinds = ("norm_q", "norm_k", "norm1.norm", "norm2.norm", "norm2", "norm_final", "norm_out.norm")
    seen = set()
    for name, module in step.named_modules():
        if isinstance(module, nn.LayerNorm):
            kind = next(kind for kind in kinds if name.endswith(kind))
            # An operator takes one for queries and keys, and so do the two norms of a block.
            module.eps = {"norm_q": 0.5, "norm_k": 0.5, "norm2": 2.0}.get(kind, 0.1)
            seen.add(kind)
    assert {"norm_q", "norm_k", "norm1.norm", "norm2"} <= seen
    inputs = seeded_samples(networks.signatures(checkpoint)["dit_step"])[0]
    with torch.no_grad():
        (wanted,) = step(*inputs.values())
        (found,) = FusedStep(step, reference)(*inputs.values())  # type: ignore[arg-type]
    assert relative_error(found, wanted) <= FP32_LIMIT


def test_no_weight_is_held_twice(untrained: Path) -> None:
    step = networks.load("dit_step", Checkpoint.open(untrained))
    before = {p.data_ptr(): p.numel() for p in step.parameters()}
    parts = [weakref.ref(block.attn1.to_k.weight) for block in step.transformer_blocks]  # type: ignore[union-attr]
    fused = FusedStep(step, reference)  # type: ignore[arg-type]
    assert not any(part() is not None for part in parts)
    after = {p.data_ptr(): p.numel() for network in (step, fused) for p in network.parameters() if p.numel()}
    assert len(after.keys() - before.keys()) == 2 * len(fused.blocks), "only queries, keys and values lie elsewhere"
    assert sum(after.values()) == sum(before.values())
