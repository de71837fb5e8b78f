"""Makes a bundle's memory plan from what the user asked for and what the GPU has free, before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from consisid_runtime.errors import InvalidOption, MemoryTooSmall
from consisid_runtime.memory.needs import Needs, architecture, counted, positions, read, size_of
from consisid_runtime.memory.plan import AUTO, GIB, RESERVED, SETTINGS, MemoryPlan, covers, enough, plan_memory
from consisid_runtime.options import Options
from consisid_runtime.plan import Plan, plan

if TYPE_CHECKING:
    from consisid_runtime.models.configs.checkpoint import CheckpointConfig

ENGINE = "torch"
"""The only engine whose weights can be moved."""
PRECISIONS = ("bf16", "fp16")
"""Those that were counted."""
PROCESSES = (
    ("aligner", "parser", "clip", "local_extractor"),
    ("text_encoder",),
    ("vae_encoder",),
    ("dit_prepare", "dit_modulate", "dit_step"),
    ("vae_decoder_first", "vae_decoder_next"),
)
"""The modules of each stage."""
_IN_FLOAT32 = ("aligner", "parser")
"""Modules that are in fp32 whatever the bundle's precision."""

Setting = int | str


def read_setting(text: str) -> Setting:
    """A setting from the text of a flag or a variable; `check_memory` refuses what is none."""
    known = {str(setting): setting for setting in SETTINGS}
    return known.get(text, text)


def check_memory(setting: object) -> None:
    """Raises `InvalidOption` for what is neither one of `SETTINGS` nor "auto"."""
    if isinstance(setting, bool) or setting not in (*SETTINGS, AUTO):
        raise InvalidOption(f"memory must be {', '.join(map(str, SETTINGS))} (GiB) or {AUTO!r}, got {setting!r}")


def decide(
    setting: Setting, config: CheckpointConfig, modules: Mapping[str, Mapping[str, Any]], device: str
) -> MemoryPlan:
    """The plan for videos of the checkpoint's own size.

    Args:
        setting: one of `SETTINGS`, in GiB, or "auto" for what the GPU has free.
        modules: of the bundle's manifest.
        device: one of `engines.DEVICES`.

    Raises `InvalidOption` for another setting, engine, precision, device or architecture, `MissingExtra` without a GPU,
    and `MemoryTooSmall`.
    """
    check_memory(setting)
    require_countable(config, modules)
    there = free(device)
    needs = needs_of(config, plan(Options(), config.geometry))
    if setting == AUTO:
        return plan_memory(needs, there - RESERVED, f"{there / GIB:.1f} GiB, which this GPU has free,")
    budget = int(setting) * GIB - RESERVED
    found = plan_memory(needs, budget, f"memory {setting}")
    if there < budget:
        raise MemoryTooSmall(f"memory {setting}: this GPU has {there / GIB:.1f} GiB free; {AUTO!r} takes what there is")
    return found


def require_covered(found: MemoryPlan, config: CheckpointConfig, request: Plan) -> None:
    """Raises `MemoryTooSmall` for a request that needs more than a plan has."""
    needs = needs_of(config, request)
    if not covers(found, needs):
        raise MemoryTooSmall(
            f"{request.frames} frames of {request.height}×{request.width} need more memory than the bundle was opened "
            f"with: {enough(needs)}"
        )


def needs_of(config: CheckpointConfig, request: Plan) -> Needs:
    """What a request takes with a checkpoint of ConsisID-preview's architecture."""
    own = size_of(config, plan(Options(), config.geometry))
    return replace(read().at(size_of(config, request)), fixed=positions(config, own))


def process_needs(
    config: CheckpointConfig, modules: Mapping[str, Mapping[str, Any]], request: Plan | None = None
) -> int:
    """Bytes that the stages take as a process each: weights, what each has once worked with, `RESERVED` of each.

    Args:
        request: None for a video of the checkpoint's own size.

    Raises as `require_countable`.
    """
    require_countable(config, modules)
    needs = needs_of(config, request or plan(Options(), config.geometry))
    taken = needs.fixed
    for names in PROCESSES:
        taken += sum(needs.weights.get(name, 0) for name in names) + max(needs.working[name] for name in names)
    return taken + len(PROCESSES) * RESERVED


def require_countable(config: CheckpointConfig, modules: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises `InvalidOption` for a bundle of another engine, precision or architecture than was counted."""
    for name, record in modules.items():
        if record["engine"] != ENGINE:
            raise InvalidOption(
                f"memory is for bundles of engine {ENGINE!r} alone, {name} is for {record['engine']!r}; leave memory "
                f"out, or export with --engine {ENGINE}"
            )
        if record["precision"] not in PRECISIONS and name not in _IN_FLOAT32:
            raise InvalidOption(
                f"memory is for bundles in {' and '.join(PRECISIONS)}, {name} is in {record['precision']}; leave "
                "memory out, or export with --precision bf16"
            )
    found, known = architecture(config), counted()["architecture"]
    differing = [f"{name} {found[name]}, not {known[name]}" for name in known if found[name] != known[name]]
    if differing:
        raise InvalidOption(
            f"memory is for checkpoints of ConsisID-preview's architecture; this one has {'; '.join(differing)}; leave "
            "memory out"
        )


def free(device: str) -> int:
    """Bytes that the GPU has free. Raises `InvalidOption` for a CPU."""
    import torch

    from consisid_runtime.engines.torch import torch_device

    place = torch_device(device)
    if place.type != "cuda":
        raise InvalidOption(f"memory is for a GPU, and the device is {place.type!r}; leave memory out")
    return int(torch.cuda.mem_get_info(place)[0])
