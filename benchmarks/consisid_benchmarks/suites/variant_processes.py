"""The variants of suite `pipeline`, each in a process of its own: they differ in how a process uses memory."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from consisid_benchmarks.suites.own_process import OwnProcess
from consisid_benchmarks.suites.variants import Diffusers, Features, Ours, TimedVideo
from consisid_runtime.allocator import keep_freed_memory
from consisid_runtime.plan import Plan


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to generate a video.

    Attributes:
        engine: `consisid export --engine` of our bundle; None for diffusers.
        compiled: diffusers with `torch.compile`.
        keeps_memory: the process keeps the memory that it frees, as `consisid` does; otherwise glibc's default, which
            whoever calls diffusers has.
    """

    name: str
    engine: str | None = None
    compiled: bool = False
    keeps_memory: bool = True


EAGER = Variant("diffusers-eager", keeps_memory=False)
VARIANTS = (
    Variant("ours", "mixed"),
    Variant("ours-onnx", "onnx"),
    Variant("ours-torch-engine", "torch"),
    EAGER,
    Variant("diffusers-eager/memory-kept"),
    Variant("diffusers-compiled/memory-kept", compiled=True),
)


class VariantProcess(OwnProcess):
    """A process that loads a variant at its first video.

    Args:
        path: the bundle, or for diffusers the checkpoint.
    """

    def __init__(self, variant: Variant, path: Path, threads: int) -> None:
        super().__init__()
        self._setting = (variant, path, threads)

    def __call__(self, features: Features, prompt: str, plan: Plan) -> TimedVideo:
        found: TimedVideo = self.run(generate, *self._setting, features, prompt, plan)
        return found


def generate(variant: Variant, path: Path, threads: int, features: Features, prompt: str, plan: Plan) -> TimedVideo:
    """One video of a variant, which this process keeps loaded."""
    return _loaded(variant, path, threads)(features, prompt, plan)


@functools.cache
def _loaded(variant: Variant, path: Path, threads: int) -> Ours | Diffusers:
    if variant.keeps_memory:
        keep_freed_memory()
    if variant.engine:
        return Ours(path, threads=threads)
    return Diffusers(path, threads=threads, compiled=variant.compiled)


def count_flop(checkpoint: Path, threads: int, features: Features, prompt: str, plan: Plan) -> int:
    """FLOP of the matrix products, convolutions and attentions with which diffusers generates one video."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    make = Diffusers(checkpoint, threads=threads)
    # PyTorch counts the attentions of GPUs only.
    attention = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flop}
    with FlopCounterMode(display=False, custom_mapping=attention) as counter:
        make(features, prompt, plan)
    return int(counter.get_total_flops())


def _attention_flop(q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: object, **__: object) -> int:
    """Of q·kᵀ and of the weighted sum, for shapes [B, H, tokens, D]."""
    batch, heads, queries, width = q
    return 2 * batch * heads * queries * k[2] * (width + v[3])
