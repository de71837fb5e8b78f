"""How far PyTorch's own float32 is from float64: the limit of fp32 is derived from it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from consisid_export.onnx.samples import seeded_samples
from consisid_export.verify.module import FP32_LIMIT, relative_error
from consisid_nano.untrained.configs import TRANSFORMER
from consisid_nano.untrained.weights import random_weights
from consisid_runtime.models.configs.dit import DiTConfig
from consisid_runtime.models.dit import DiT, Step
from consisid_runtime.signatures import DIT_STEP

WIDTHS = [(3, 4), (9, 6), (48, 2)]
"""Heads of 64 and layers: the untrained checkpoint's kind, `mid`, and ConsisID-preview's width."""


def random_step(heads: int, layers: int, peak: float, seed: int) -> tuple[Step, DiTConfig]:
    config = DiTConfig.from_dict(
        TRANSFORMER
        | {"num_attention_heads": heads, "num_layers": layers, "LFE_output_dim": heads * 64 * 2 // 3}
        | {"use_learned_positional_embeddings": False}
    )
    with torch.device("meta"):
        network = DiT(config)
    weights = random_weights(network, torch.Generator().manual_seed(seed))
    for name in weights:
        if name.endswith(("norm_q.weight", "norm_k.weight")):
            weights[name] *= peak
    network.load_state_dict(weights, assign=True)
    return Step(network).eval(), config


@torch.no_grad()
def distance(heads: int, layers: int, peak: float, seed: int) -> float:
    """The largest relative L2 error of a step in float32 over the seeded samples."""
    step, config = random_step(heads, layers, peak, seed)
    samples = list(seeded_samples(DIT_STEP.bind(config.dims)))
    narrow = [step(*inputs.values())[0] for inputs in samples]
    step.double()
    wide = [
        step(*(value.double() if value.is_floating_point() else value for value in inputs.values()))[0]
        for inputs in samples
    ]
    return max(relative_error(found, wanted) for found, wanted in zip(narrow, wide, strict=True))


@pytest.mark.proof
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("heads", "layers"), WIDTHS)
def test_width_alone_does_not_reach_the_least_limit(
    heads: int, layers: int, seed: int, proof: Callable[..., Any]
) -> None:
    record, trial = proof("float32-distance"), f"width {heads * 64}, {layers} layers, seed {seed}"
    if trial not in record.trials:
        record.record(trial, distance=distance(heads, layers, 1.0, seed))
    assert record.trials[trial]["distance"] < FP32_LIMIT / 2


@pytest.mark.proof
def test_peaked_attention_does(proof: Callable[..., Any]) -> None:
    """With the scales of the norms of queries and keys times 4, scores are 16 times larger."""
    record, trial = proof("float32-distance"), "width 192, 4 layers, seed 0, scales × 4"
    if trial not in record.trials:
        record.record(trial, distance=distance(3, 4, 4.0, 0))
    assert record.trials[trial]["distance"] > FP32_LIMIT / 2
