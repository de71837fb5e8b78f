"""The limit of a graph's error: earned by PyTorch's own, never below 1e-5, and in fp32 never near a wrong wire's."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from torch import Tensor, nn

from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.onnx.samples import TRACE_SIZES, sample_inputs
from consisid_export.verify import denoising_run
from consisid_export.verify.module import FP32_CEILING, FP32_LIMIT, check, fp32_limit
from consisid_runtime.errors import ExportRefused
from consisid_runtime.models import networks
from consisid_runtime.signatures import Port, Signature

SIGNATURE = Signature("sum", (Port("x", "FP32", (1, 512)),), (Port("y", "FP32", (1, 512)),))
MODULES = {name: {"kind": "numeric", "error": 0.0, "limit": 1e-5} for name in denoising_run.MODULES}


class Cancelling(nn.Module):
    """x, of which float32 loses as many digits as `offset` has."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = offset

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.offset) - self.offset


def own_error(offset: float, x: Tensor) -> Tensor:
    with torch.no_grad():
        return (Cancelling(offset)(x) - x).double()


def never() -> NoReturn:
    raise AssertionError("float64 is not needed")


def engine_with(error: Callable[[Tensor], Tensor]) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    """An engine that answers x and this error."""
    return lambda inputs: {"y": inputs["x"].double() + error(inputs["x"])}


def turned(values: Tensor) -> Tensor:
    """The same errors at other places, so that they are independent of those before."""
    return values.roll(1, dims=-1)


def test_where_1e_5_is_kept_nothing_is_run_in_float64() -> None:
    found = check(Cancelling(0.0), engine_with(lambda x: 0.99e-5 * x.double()), SIGNATURE, exact=never)
    assert (found.limit, found.reason) == (FP32_LIMIT, "the least limit") == (1e-5, "the least limit")
    assert found.error == pytest.approx(0.99e-5, rel=1e-2)


@pytest.mark.parametrize(("share", "accepted"), [(1.0, True), (1.95, True), (2.05, False)])
def test_an_honest_graph_of_an_ill_conditioned_network_is_accepted(share: float, accepted: bool) -> None:
    network = Cancelling(512.0)
    engine = engine_with(lambda x: share * turned(own_error(512.0, x)))
    with pytest.raises(ExportRefused, match=r"the limit is 1e-05"):
        check(network, engine, SIGNATURE)  # the reproducer: what every fp32 graph had to keep
    if accepted:
        found = check(network, engine, SIGNATURE, exact=lambda: network)
        assert FP32_LIMIT < found.limit < 1e-4 and found.error == pytest.approx(share / 2 * found.limit, rel=1e-3)
        assert found.reason == "2 × the distance of PyTorch's own float32 from float64"
    else:
        with pytest.raises(ExportRefused, match="2 × the distance of PyTorch's own float32 from float64"):
            check(network, engine, SIGNATURE, exact=lambda: network)


@pytest.mark.parametrize("offset", [0.0, 512.0, 1e5])
def test_a_graph_that_is_wrong_by_1e_3_is_refused_however_inexact_pytorch_is(offset: float) -> None:
    network = Cancelling(offset)
    with pytest.raises(ExportRefused, match="differs from PyTorch by"):
        check(network, engine_with(lambda x: 1e-3 * x.double()), SIGNATURE, exact=lambda: network)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(value: float) -> None:
    network = Cancelling(512.0)
    with pytest.raises(ExportRefused, match="by inf"):
        check(network, engine_with(lambda x: value * x.double()), SIGNATURE, exact=lambda: network)


def test_the_limit_of_fp32_lies_between_its_bounds() -> None:
    assert fp32_limit(1e-7, 2) == (FP32_LIMIT, "the least limit")
    assert fp32_limit(1e-5, 2)[0] == 2e-5
    assert fp32_limit(1e-2, 2) == (FP32_CEILING, "the largest limit of fp32")
    assert fp32_limit(float("inf"), 2)[0] == FP32_CEILING < 1e-3


@pytest.mark.parametrize("module", networks.COMPONENTS)
def test_in_float64_every_layer_computes_in_float64(untrained: Path, module: str) -> None:
    """Otherwise PyTorch's own error, and with it the limit, would come out too small."""
    checkpoint = Checkpoint(untrained)
    network = networks.load(module, checkpoint, torch.float64)
    narrow: list[str] = []

    def note(layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        if any(isinstance(x, Tensor) and x.dtype == torch.float32 for x in arguments):
            narrow.append(type(layer).__name__)

    leaves = [layer for layer in network.modules() if not [*layer.children()]]
    for layer in leaves:
        layer.register_forward_pre_hook(note)
    inputs = sample_inputs(networks.signatures(checkpoint)[module], TRACE_SIZES)
    with torch.no_grad():
        network(*(value.double() if value.is_floating_point() else value for value in inputs.values()))
    assert leaves and not narrow


class Runs:
    """`CheckpointRuns.held_out` of given latents, the exact ones on the second call."""

    def __init__(self, *answers: list[Tensor]) -> None:
        self.answers = list(answers)

    def held_out(self, *loads: object) -> list[Tensor]:
        assert len(loads) == len(self.answers[0])
        return self.answers.pop(0)


@pytest.mark.parametrize(("share", "accepted"), [(1.1, True), (1.3, False)])
def test_a_whole_run_in_fp32_is_measured_from_float64_too(share: float, accepted: bool) -> None:
    true = torch.randn(1, 512, generator=torch.Generator().manual_seed(0)).double()
    noise = 3e-5 * torch.randn(1, 512, generator=torch.Generator().manual_seed(1)).double()
    runs: Any = Runs([true + noise, true + share * turned(noise)], [true])
    nothing: Any = None
    arguments: Any = (nothing, nothing, nothing, MODULES, runs)
    if accepted:
        found = denoising_run.check_denoising_run(*arguments, precision="fp32")["check"]
        assert found["error"] == pytest.approx(share / 1.2 * found["limit"], rel=1e-3)
        assert found["reason"] == "1.2 × the distance of PyTorch's own float32 from float64"
    else:
        with pytest.raises(ExportRefused, match="after 20 denoising steps the latents differ"):
            denoising_run.check_denoising_run(*arguments, precision="fp32")
