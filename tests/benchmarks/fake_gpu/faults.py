"""Plants faults in the denoiser's step and prints what the fake GPU saw. ConsisID-preview's width, 2 layers.

`python faults.py`: JSON, fault → counts as `cases.full` gives them, or the error that stopped it; "none" is sound.
"""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any
from unittest import mock

import torch

from consisid_benchmarks.fake_gpu.cases import begin_stage, counted
from consisid_benchmarks.fake_gpu.full_size import CONFIGS, FullSize
from consisid_benchmarks.fake_gpu.machine import device_tensor, host_tensor, machine
from consisid_benchmarks.fake_gpu.stages import run_stages
from consisid_kernels import ops
from consisid_kernels.attention import joint, joint_hopper
from consisid_runtime.engines.transfers import Lead
from consisid_runtime.models.fused import step as fused_step
from consisid_runtime.models.fused.step import FusedBlock
from consisid_runtime.stages import denoise
from consisid_runtime.stages.denoise import Denoiser

LAYERS = {**CONFIGS, "transformer": {**CONFIGS["transformer"], "num_layers": 2, "sample_frames": 9}}
feed_forward, project, affine, start, tile, part = (
    FusedBlock.feed_forward, FusedBlock.project, fused_step._affine, Denoiser.start, joint.tile, Lead.part,
)  # fmt: skip
kept: list[torch.Tensor] = []


def conditions_on_the_cpu(self: Any, *given: Any) -> Any:
    conditions, *rest = start(self, *given)
    return replace(conditions, rope_cos=torch.zeros(conditions.rope_cos.shape)), *rest


def weight_on_the_cpu(norm: Any) -> Any:
    weight, bias = affine(norm)
    return weight, torch.zeros(bias.shape, dtype=bias.dtype)


def copied(self: Any, normed: Any, *rest: Any) -> Any:
    return project(self, normed.clone(), *rest)


def checked(self: Any, normed: Any, *rest: Any) -> Any:
    assert normed.isfinite().all()
    return feed_forward(self, normed, *rest)


def held(self: Any, normed: Any, *rest: Any) -> Any:
    kept.append(normed)
    return feed_forward(self, normed, *rest)


def without_lead(self: Any) -> None:
    part(self)
    self.finish()


def two_warps(kernel: str, *rest: Any) -> dict[str, int]:
    return tile(kernel, *rest) | {"num_warps": 2}


@contextmanager
def attention_that_raises() -> Iterator[None]:
    """At its launch, on a GPU that has not tried it before."""
    ops.joint_attention_form.cache_clear()
    with mock.patch.object(joint_hopper, "_attention", None):
        yield
    ops.joint_attention_form.cache_clear()


FAULTS: dict[str, AbstractContextManager[Any]] = {
    "none": nullcontext(),
    "conditions on the CPU": mock.patch.object(Denoiser, "start", conditions_on_the_cpu),
    "weight on the CPU": mock.patch.object(fused_step, "_affine", weight_on_the_cpu),
    "hidden copy": mock.patch.object(FusedBlock, "project", copied),
    "wait in the loop": mock.patch.object(FusedBlock, "feed_forward", checked),
    "pageable draw": mock.patch.object(denoise, "send", torch.Tensor.to),
    "no lead": mock.patch.object(Lead, "part", without_lead),
    "memory held": mock.patch.object(FusedBlock, "feed_forward", held),
    "attention that raises": attention_that_raises(),
    "spill": mock.patch.object(joint, "tile", two_warps),
}


def run() -> dict[str, Any]:
    with machine() as (meter, launches), torch.no_grad():
        bundle = FullSize(lambda name, shape, dtype: host_tensor(shape, dtype), configs=LAYERS)
        run_stages(bundle, lambda *shape: device_tensor(meter, *shape), begin_stage(meter), "denoise")
        return counted(meter, launches)


if __name__ == "__main__":
    seen: dict[str, Any] = {}
    for fault, planted in FAULTS.items():
        with planted:
            try:
                seen[fault] = run()
            except Exception as error:  # what the fake GPU refuses is a finding
                seen[fault] = {"error": f"{type(error).__name__}: {error}"}
        kept.clear()
    print(json.dumps(seen))
