"""Whatever a plan moves, a video has the same bytes; the CPU stands in for a GPU, and weights that are away are NaN."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from consisid_export.onnx.samples import seeded_samples
from consisid_kernels import reference
from consisid_runtime import bundle as bundles
from consisid_runtime.bundle import Bundle
from consisid_runtime.engines.torch import TorchEngine
from consisid_runtime.memory import weights as moved
from consisid_runtime.memory.needs import ORDER, Needs, Size
from consisid_runtime.memory.plan import MemoryPlan, fit, needed, owners
from consisid_runtime.memory.weights import Copies, StreamedBlocks, Weights
from consisid_runtime.models.fused.step import FusedStep
from consisid_runtime.options import Options
from consisid_runtime.pipeline import Pipeline

CPU = torch.device("cpu")
OPTIONS = Options(steps=12, frames=17)
"""More than one block of modulations."""


@pytest.fixture(scope="module")
def folder(torch_bundle_of: Callable[..., Path]) -> Path:
    return torch_bundle_of()


@pytest.fixture(scope="module")
def needs(folder: Path) -> Needs:
    """Of the untrained bundle: its weights alone."""
    bundle = Bundle.open(folder, device="cpu")
    networks = {name: network_of(bundle, name) for name in ORDER}
    weights = {name: size_of(networks[name]) for name in owners()}
    blocks = networks["dit_step"].transformer_blocks
    assert isinstance(blocks, nn.ModuleList)
    return Needs(weights, dict.fromkeys(ORDER, 0), 0, len(blocks), size_of(blocks[0]), Size(1, 1))


def network_of(bundle: Bundle, name: str) -> nn.Module:
    engine = bundle.module(name)
    assert isinstance(engine, TorchEngine)
    return engine.network


def size_of(network: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))


def plans(needs: Needs) -> dict[str, MemoryPlan]:
    """From all on the device to as little as possible."""
    alone = max(sum(needs.weights[name] for name in needed(module)) for module in ORDER)
    least = next(budget for budget in range(needs.weights["dit_step"], alone + 1, 64) if fit(needs, budget))
    budgets = {"all": sum(needs.weights.values()), "some": alone + needs.weights["text_encoder"], "alone": alone}
    found = {name: fit(needs, budget) for name, budget in (budgets | {"streamed": least}).items()}
    assert all(found.values())
    return found  # type: ignore[return-value]


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not on the device is NaN: a GPU would refuse it."""
    put, drop, bring = moved._Weight.put, Weights.drop, StreamedBlocks._bring

    def dropped(self: Weights) -> bool:
        there = drop(self)
        for each in self._weights:
            put(each, torch.full_like(each.host, torch.nan) if each.host.is_floating_point() else each.host)
        return there

    def brought(self: StreamedBlocks, number: int) -> None:
        for slot in range(len(self._slots)):
            if self._held[slot] is None:
                for tensor in self._slots[slot]:
                    tensor.fill_(torch.nan)
        bring(self, number)

    monkeypatch.setattr(Weights, "drop", dropped)
    monkeypatch.setattr(StreamedBlocks, "_bring", brought)
    monkeypatch.setattr(bundles, "require_covered", lambda *_: None)


def align(bundle: Bundle, names: Iterable[str]) -> None:
    """A product on a CPU may round otherwise where its factors are not aligned, as those that a file is mapped to."""
    for name in names:
        Weights(network_of(bundle, name), Copies(CPU)).require()


def opened(folder: Path, plan: MemoryPlan | None) -> Bundle:
    bundle = Bundle.open(folder, device="cpu")
    bundle.memory = plan
    return bundle


@pytest.fixture(scope="module")
def wanted(folder: Path, portrait: bytes) -> bytes:
    bundle = opened(folder, None)
    pipeline = Pipeline(bundle)
    align(bundle, owners())
    return pipeline.generate(portrait, "a man", OPTIONS).mp4


@pytest.mark.parametrize("name", ["all", "some", "alone", "streamed"])
def test_a_video_has_the_same_bytes_under_every_plan(
    name: str, folder: Path, needs: Needs, wanted: bytes, portrait: bytes, poisoned: None
) -> None:
    plan = plans(needs)[name]
    assert bool(plan.streamed) == (name == "streamed") and (len(plan.resident) == len(owners())) == (name == "all")
    bundle = opened(folder, plan)
    pipeline = Pipeline(bundle)
    align(bundle, plan.resident)
    for _ in range(2):
        video = pipeline.generate(portrait, "a man", OPTIONS)
        assert video.mp4 == wanted
    assert video.info["memory"]["streamed_blocks"] == plan.streamed


def test_weights_are_where_the_plan_has_them_also_after_failures(
    folder: Path, needs: Needs, wanted: bytes, portrait: bytes, poisoned: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plans(needs)["streamed"]
    bundle = opened(folder, plan)
    pipeline = Pipeline(bundle)
    residency = bundle._carried_out
    assert residency is not None and residency.on_device == set()
    align(bundle, set(plan.resident) - set(residency._weights))
    seen: list[str] = []
    call = TorchEngine.__call__
    names = {id(bundle.module(name)): name for name in ORDER}

    def watched(self: TorchEngine, inputs: Any) -> Any:
        name = names[id(self)]
        forward = self.network.forward

        def running(*given: Any) -> Any:
            assert residency.on_device == set(plan.company[name]) & set(residency._weights)
            seen.append(name)
            if len(seen) == fails_at:
                raise RuntimeError("planted")
            return forward(*given)

        with monkeypatch.context() as patch:
            patch.setattr(self.network, "forward", running)
            return call(self, inputs)

    monkeypatch.setattr(TorchEngine, "__call__", watched)
    fails_at = 0
    assert pipeline.generate(portrait, "a man", OPTIONS).mp4 == wanted
    calls = list(seen)
    assert set(calls) == set(ORDER)
    for name in ("text_encoder", "dit_step"):
        seen.clear()
        fails_at = calls.index(name) + 1
        with pytest.raises(RuntimeError, match="planted"):
            pipeline.generate(portrait, "a man", OPTIONS)
        seen.clear()
        fails_at = 0
        assert pipeline.generate(portrait, "a man", OPTIONS).mp4 == wanted


def test_a_copy_that_fails_changes_nothing(poisoned: None, monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Linear(3, 3)
    x = torch.randn(2, 3)
    with torch.no_grad():
        wanted = network(x)
    weights = Weights(network, Copies(CPU))

    def fails(*_: object) -> None:
        raise torch.OutOfMemoryError("planted")

    with monkeypatch.context() as patch:
        patch.setattr(Copies, "begin", fails)
        with pytest.raises(torch.OutOfMemoryError):
            weights.bring()
    assert not weights.on_device and network.weight.isnan().all()
    weights.require()
    with torch.no_grad():
        assert torch.equal(network(x), wanted)
    assert weights.drop() and not weights.drop()


def test_what_is_shared_stays_shared(poisoned: None) -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    both = nn.ModuleList((first, second))
    both.register_buffer("count", torch.tensor([3]))
    weights = Weights(both, Copies(CPU))
    assert first.weight is not second.weight and len(weights._weights) == 4
    weights.require()
    assert first.weight.data_ptr() == second.weight.data_ptr() and both.count.item() == 3


@pytest.mark.parametrize("count", [2, 4])
def test_streamed_blocks_of_the_fused_step(count: int, folder: Path, poisoned: None) -> None:
    """The form that runs on a GPU asks for blocks in an order of its own."""
    bundle = Bundle.open(folder, device="cpu")
    step = FusedStep(network_of(bundle, "dit_step"), reference)  # type: ignore[arg-type]
    Weights(step, Copies(CPU)).require()
    inputs = [sample.values() for sample in seeded_samples(bundle.signature("dit_step"))]
    with torch.no_grad():
        wanted = [step(*each)[0] for each in inputs]
        with pytest.raises(ValueError, match="multiple of 2"):
            StreamedBlocks(list(step.blocks), 3, Copies(CPU))
        blocks = StreamedBlocks(list(step.blocks), count, Copies(CPU))
        step.blocks = blocks
        for _ in range(2):
            blocks.attach()
            assert all(torch.equal(step(*each)[0], other) for each, other in zip(inputs, wanted, strict=True))
            blocks.detach()
    places = {id(tensor) for slot in blocks._slots for tensor in slot}
    assert not places, "nothing is left on the device"
