"""Linear layers in E4M3: the step computes what its own network does on rounded weights and inputs."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.onnx.fp8 import quantised_layers
from consisid_export.onnx.samples import seeded_samples
from consisid_export.verify.module import relative_error
from consisid_kernels import reference
from consisid_runtime.models import networks
from consisid_runtime.models.fused.float8 import Float8Linear
from consisid_runtime.models.fused.step import FusedStep

E4M3_ERROR = 2**-4
"""Of a rounded number, relative: there are three bits after the leading one."""


def rounded(x: Tensor) -> Tensor:
    """Each row to E4M3 and back, written without the operators."""
    scale = x.abs().amax(-1, keepdim=True) / 448
    return (x / scale).to(torch.float8_e4m3fn).to(x.dtype) * scale


def oracle(step: nn.Module) -> nn.Module:
    """The network itself; weights and inputs of the layers that are quantised are rounded."""
    network = copy.deepcopy(step)
    for layer in quantised_layers(network).values():
        layer.weight = nn.Parameter(rounded(layer.weight), requires_grad=False)
        layer.register_forward_pre_hook(lambda _, given: (rounded(given[0]),))
    return network


@pytest.mark.parametrize("transformer", [{}, {"attention_bias": False}], ids=str)
def test_a_step_is_the_network_on_rounded_numbers(
    checkpoint_of: Callable[..., Path], transformer: dict[str, Any]
) -> None:
    """One layer: float32's last bits decide a few roundings, and every layer multiplies how many."""
    checkpoint = Checkpoint.open(checkpoint_of(num_layers=1, cross_attn_interval=1, **transformer))
    step = networks.load("dit_step", checkpoint)
    fused = FusedStep(copy.deepcopy(step), reference, float8=True)  # type: ignore[arg-type]
    for inputs in seeded_samples(networks.signatures(checkpoint)["dit_step"]):
        with torch.no_grad():
            (exact,), (wanted,), (found,) = (network(*inputs.values()) for network in (step, oracle(step), fused))
        own = relative_error(wanted, exact)
        assert own > 1e-3
        assert relative_error(found, wanted) < own / 10


def test_a_layer_takes_the_place_of_the_one_it_was_made_from() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(32, 16).to(torch.bfloat16).requires_grad_(False)
    before, x = copy.deepcopy(linear), torch.randn(3, 5, 32, dtype=torch.bfloat16)
    layer = Float8Linear(linear, reference)
    assert layer.weight.dtype == torch.float8_e4m3fn and layer.weight_scale.shape == (16,)
    assert linear.weight.numel() == 0, "the weights are held once"
    found = layer(x)
    assert found.dtype == torch.bfloat16 and found.shape == (3, 5, 16)
    assert 0 < relative_error(found, before(x).double()) < E4M3_ERROR
    assert torch.equal(found, layer.multiply(*reference.quantise_rows(x)))


def test_every_layer_of_every_block_is_quantised(untrained: Path) -> None:
    step = networks.load("dit_step", Checkpoint.open(untrained))
    shapes = sorted(tuple(layer.weight.shape) for layer in quantised_layers(step).values())
    fused = FusedStep(step, reference, float8=True)  # type: ignore[arg-type]
    layers = [layer for layer in fused.modules() if isinstance(layer, Float8Linear)]
    assert sum(layer.weight.numel() for layer in layers) == sum(a * b for a, b in shapes)
    assert not any(isinstance(layer, nn.Linear) for layer in fused.blocks.modules())
