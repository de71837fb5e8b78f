"""Decoding at ConsisID-preview's size on a GPU, ours and diffusers', with the same weights: a part of suite `peers`."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from consisid_benchmarks.gpu_run import full_size
from consisid_benchmarks.gpu_run.stopwatch import Gauge, Stopwatch
from consisid_benchmarks.gpu_run.width_check import Configs
from consisid_export.verify.module import OWN_ERROR_FACTOR, relative_error
from consisid_measurement.harness import Arm, Mismatch, interleave, summarise
from consisid_measurement.record import OURS, Row
from consisid_runtime.options import Options
from consisid_runtime.plan import plan

if TYPE_CHECKING:
    from consisid_benchmarks.fake_gpu.full_size import FullSize

EAGER, TILED = "diffusers-eager", "diffusers-tiled"
FRAMES = 17
"""Of the video: diffusers takes seconds for 49, and as much memory."""
CASE = f"decode/{FRAMES}-frames"

Decode = Callable[[], Tensor]


def measure(device: str, configs: Configs, gauge: Gauge, rounds: int) -> list[Row]:
    """All in bf16, in turn, from latents to float frames on the device.

    "error_percent" is the relative L2 distance from diffusers in float32. Tiles have norms of their own, so that
    `TILED` makes another video; it is timed all the same, because that is what little memory costs there.
    "working_bytes" is the most that tensors take beside the loaded weights.

    Raises `Mismatch` where ours is more than twice as far off as `EAGER`.
    """
    with torch.no_grad():
        bundle = full_size.bundle(device, configs)
        request = plan(Options(frames=FRAMES), bundle.config.geometry)
        spatial, channels = bundle.config.vae.spatial, bundle.config.vae.latent_channels
        size = request.height // spatial, request.width // spatial
        latents = full_size.inputs(device)(1, channels, request.latent_frames, *size)
        calls = {
            OURS: _ours(bundle, latents),
            EAGER: _diffusers(bundle, configs, latents, torch.bfloat16),
            TILED: _diffusers(bundle, configs, latents, torch.bfloat16, tiled=True),
        }
        exact = _diffusers(bundle, configs, latents, torch.float32)().cpu()
        gc.collect()
        errors = {name: relative_error(call().cpu(), exact) for name, call in calls.items()}
        if not errors[OURS] <= OWN_ERROR_FACTOR * errors[EAGER]:
            raise Mismatch(
                f"our frames are {errors[OURS]:.1e} (relative L2) from {EAGER} in float32, its own in bf16 "
                f"{errors[EAGER]:.1e}; twice that is allowed"
            )
        rows = [summarise(CASE, name, "error_percent", [100 * error]) for name, error in errors.items()]
        arms = [Arm(name, lambda call=call: _lap(call, gauge)) for name, call in calls.items()]  # type: ignore[misc]
        return rows + interleave(CASE, arms, rounds=rounds)


def _ours(bundle: FullSize, latents: Tensor) -> Decode:
    first, following = (bundle.module(f"vae_decoder_{part}") for part in ("first", "next"))

    def decode() -> Tensor:
        outputs = first({"latents": latents[:, :, :3]})
        chunks = [outputs.pop("frames")]
        for start in range(3, latents.shape[2], 2):
            caches = {name.removeprefix("next_"): cache for name, cache in outputs.items()}
            outputs = following({"latents": latents[:, :, start : start + 2], **caches})
            chunks.append(outputs.pop("frames"))
        return torch.cat(chunks, dim=2)

    return decode


def _diffusers(
    bundle: FullSize, configs: Configs, latents: Tensor, dtype: torch.dtype, *, tiled: bool = False
) -> Decode:
    from diffusers import AutoencoderKLCogVideoX

    make: Any = AutoencoderKLCogVideoX
    with torch.device("meta"):
        network = make(**{name: value for name, value in configs["vae"].items() if not name.startswith("_")})
    network.load_state_dict({name: tensor.to(dtype) for name, tensor in bundle.tensors("vae").items()}, assign=True)
    network.eval().requires_grad_(False)
    if tiled:
        network.enable_tiling()
    return lambda: network.decode(latents.to(dtype)).sample.float()


def _lap(call: Decode, gauge: Gauge) -> Mapping[str, float]:
    gauge.reset()
    loaded = gauge.peak()
    watch = Stopwatch(gauge)
    watch("decode")
    call()
    watch("")
    lap = watch.laps[0]
    return {"decode_seconds": lap.seconds, "working_bytes": lap.peak_bytes - loaded}
