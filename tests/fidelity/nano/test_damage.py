from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.onnx.samples import TRACE_SIZES, sample_inputs
from consisid_fidelity.nano.damage import (
    permuted_tokens,
    rounded,
    rounded_step,
    shuffled_channels,
    without_injection,
)
from consisid_runtime.bundle import Bundle
from consisid_runtime.stages.denoise import Conditions

TOKENS = torch.randn(1, 16, 24, generator=torch.Generator().manual_seed(0))


def test_attention_is_invariant_to_the_order_of_tokens() -> None:
    moved, query = permuted_tokens(TOKENS), TOKENS[0, :3].double()
    assert not torch.equal(moved, TOKENS)

    def attend(tokens: torch.Tensor) -> torch.Tensor:
        return (query @ tokens[0].double().mT).softmax(dim=-1) @ tokens[0].double()

    assert torch.allclose(attend(moved), attend(TOKENS), rtol=0, atol=1e-12)
    assert not torch.allclose(attend(shuffled_channels(TOKENS)), attend(TOKENS), rtol=0.1)


def test_shuffled_channels_are_a_permutation() -> None:
    moved = shuffled_channels(TOKENS)
    assert torch.equal(moved.sort(dim=-1).values, TOKENS.sort(dim=-1).values) and not torch.equal(moved, TOKENS)
    assert torch.equal(shuffled_channels(TOKENS), moved)


@pytest.mark.parametrize(("share", "layer"), [(0, 0), (0.5, 1), (1, 2)])
def test_one_injection_is_dropped_and_the_input_is_unchanged(share: float, layer: int) -> None:
    values = torch.ones(3, 4, 6)
    given = Conditions(*(torch.ones(1) for _ in range(3)), values, torch.ones(1), torch.ones(1))
    found = without_injection(share)(given).face_values
    assert [bool(found[i].any()) for i in range(3)] == [i != layer for i in range(3)]
    assert values.all()


@pytest.mark.parametrize("bits", [3, 8])
def test_weights_are_rounded_to_the_nearest_level(bits: int) -> None:
    weight = TOKENS[0]
    found = rounded(weight, bits)
    scale = weight.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)
    levels = found / scale
    assert torch.allclose(levels, levels.round(), atol=1e-5) and levels.abs().max() <= 2 ** (bits - 1) - 1 + 1e-5
    assert ((found - weight).abs() <= scale / 2 * (1 + 1e-5)).all()
    assert torch.equal(rounded(torch.zeros(2, 3), bits), torch.zeros(2, 3))


def test_the_error_grows_with_fewer_bits(untrained: Path, torch_bundle_of: Callable[[], Path]) -> None:
    bundle = Bundle.open(torch_bundle_of(), device="cpu")
    signature = bundle.signature("dit_step")
    inputs = sample_inputs(signature, TRACE_SIZES)
    exact = bundle.module("dit_step")(inputs)["velocity"]
    errors = []
    for bits in (None, 8, 3):
        found = rounded_step(Checkpoint.open(untrained), signature, bits)(inputs)["velocity"]
        errors.append(float((found - exact).norm() / exact.norm()))
    assert errors[0] == 0 and 0 < 10 * errors[1] < errors[2]
