"""Suite `peers`: a step and decoding at ConsisID-preview's size on a GPU, ours and others', with the same weights."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from consisid_benchmarks.suites.gpu import ceilings, require_gpu
from consisid_measurement.commands import Json, MachineName, Out, Rounds, results_folder, run_suite

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from consisid_benchmarks.fake_gpu.full_size import FullSize
    from consisid_benchmarks.gpu_run.stopwatch import Gauge
    from consisid_benchmarks.gpu_run.width_check import Configs
    from consisid_measurement.record import Row

SUITE = "peers"
GATE = "tests/kernels/test_engine.py"
PACKAGES = ("consisid-runtime", "torch", "triton", "diffusers", "transformers")
PEER, OFFLOADED, CACHED = "diffusers-eager", "diffusers-offloaded", "cache-dit"
_POSITIONS = "patch_embed.pos_embedding"

Given = Mapping[str, "Tensor"]
Change = Callable[[Any], object]
"""What a peer does to diffusers' network before it is called."""


def _unchanged(network: Any) -> None: ...


def _compiled(network: Any) -> None:
    # Block by block, as diffusers' `compile_repeated_blocks`: 42 equal blocks are compiled once.
    for block in network.transformer_blocks:
        block.compile()


def _cached(network: Any) -> None:
    import cache_dit

    # The least that its cache always computes; its first eight steps are computed in full.
    cache_dit.enable_cache(network, cache_config=cache_dit.DBCacheConfig(Fn_compute_blocks=1))


def _offloaded(network: Any) -> None:
    # As `enable_sequential_cpu_offload`, but a layer's weights are on their way while the one before computes.
    device = next(network.parameters()).device
    network.enable_group_offload(device, offload_type="leaf_level", use_stream=device.type == "cuda")


PEERS: Mapping[str, Change] = {
    PEER: _unchanged,
    "diffusers-compiled": _compiled,
    OFFLOADED: _offloaded,
    CACHED: _cached,
}
"""`CACHED` is cache-dit's own adapter for ConsisID."""
NEEDED = {OFFLOADED: "accelerate", CACHED: "cache_dit"}
"""Peer → the package without which it is left out."""


def command(rounds: Rounds = 5, machine: MachineName = None, out: Out = None, as_json: Json = False) -> None:
    """Time a step and decoding at ConsisID-preview's size, ours and others', with the same weights. Needs a GPU."""
    require_gpu(SUITE)
    import torch

    from consisid_benchmarks.fake_gpu.full_size import CONFIGS
    from consisid_benchmarks.gpu_run import decode_peers, stopwatch

    results = results_folder(out)

    def rows() -> list[Row]:
        gauge = stopwatch.cuda()
        found = measure("cuda", CONFIGS, gauge, rounds)
        gc.collect()
        torch.cuda.empty_cache()
        return found + decode_peers.measure("cuda", CONFIGS, gauge, rounds)

    run_suite(
        SUITE, GATE, rows, packages=PACKAGES, machine=machine, results=results, as_json=as_json, ceilings=ceilings
    )


def measure(
    device: str, configs: Configs, gauge: Gauge, rounds: int, chosen: Iterable[str] = tuple(PEERS)
) -> list[Row]:
    """All in bf16, in turn. Diffusers reads the face anew in each step; ours has done that before the first.

    "error_percent" is the relative L2 distance from diffusers in float32, with `LAYERS` layers; a peer that is more
    than twice as far as diffusers itself is not timed.

    Args:
        chosen: of `PEERS`; one whose package is missing is left out.

    Raises `Mismatch` where ours is that far.
    """
    import torch

    from consisid_benchmarks.gpu_run import full_size, width_check
    from consisid_export.verify.module import OWN_ERROR_FACTOR
    from consisid_measurement.harness import Arm, interleave, summarise
    from consisid_measurement.record import OURS

    peers = {name: PEERS[name] for name in chosen if name not in NEEDED or find_spec(NEEDED[name])}
    with torch.no_grad():
        few = width_check.shallow(configs)
        errors = compare(full_size.bundle(device, few), few, device, peers)
        gc.collect()
        rows = [
            summarise(f"denoise/step, {width_check.LAYERS} layers", name, "error_percent", [100 * error])
            for name, error in errors.items()
        ]
        bundle = full_size.bundle(device, configs)
        given = _given(bundle, device)
        tensors = _tensors(bundle, torch.bfloat16)
        calls = {OURS: _ours(bundle, given)}
        for name, change in peers.items():
            if errors[name] <= OWN_ERROR_FACTOR * errors[PEER]:
                calls[name] = _diffusers(tensors, configs, given, change)
        arms = [Arm(name, lambda call=call: _lap(call, gauge)) for name, call in calls.items()]  # type: ignore[misc]
        return rows + interleave("denoise/step", arms, rounds=rounds)


def compare(bundle: FullSize, configs: Configs, device: str, peers: Mapping[str, Change]) -> dict[str, float]:
    """Variant → the relative L2 error of its step, ours first. Raises `Mismatch` where ours is not `require_close`."""
    import torch

    from consisid_benchmarks.gpu_run.width_check import require_close
    from consisid_export.verify.module import relative_error
    from consisid_measurement.record import OURS

    given = _given(bundle, device)
    exact = _diffusers(_tensors(bundle, torch.float32), configs, given)().cpu()
    tensors = _tensors(bundle, torch.bfloat16)
    found = {OURS: relative_error(_ours(bundle, given)().cpu(), exact)}
    for name, change in peers.items():
        found[name] = relative_error(_diffusers(tensors, configs, given, change)().cpu(), exact)
    require_close(found[OURS], found[PEER], PEER)
    return found


def _given(bundle: FullSize, device: str) -> Given:
    """What a step of a request with guidance depends on, under names of ours."""
    import torch

    from consisid_benchmarks.gpu_run import full_size
    from consisid_runtime.models.positions import rope
    from consisid_runtime.options import Options
    from consisid_runtime.plan import plan

    draw, config = full_size.inputs(device), bundle.config
    request = plan(Options(), config.geometry)
    frames, rows, columns = request.latent_frames, request.rows, request.columns
    size = request.height // config.vae.spatial, request.width // config.vae.spatial
    text = config.transformer.max_text_seq_length, config.transformer.text_embed_dim
    identity, hidden = (port.shape for port in bundle.signature("local_extractor").inputs)
    cos, sin = (tensor.to(device) for tensor in rope(config.transformer, frames, rows, columns))
    return {
        "latents": draw(1, frames, config.vae.latent_channels, *size),
        "image_latents": draw(1, frames, config.vae.latent_channels, *size),
        "text_states": draw(2, *text),
        "identity": draw(*identity),
        "clip_hidden": draw(*hidden),
        "timesteps": torch.tensor([500], device=device),
        "rope_cos": cos,
        "rope_sin": sin,
    }


def _ours(bundle: FullSize, given: Given) -> Callable[[], Tensor]:
    """A step alone: what a request prepares is prepared. No positions are added."""
    import torch

    config, shape = bundle.config.transformer, given["rope_cos"].shape[:3]
    positions = {
        "text_positions": torch.zeros(config.max_text_seq_length, config.dim),
        "video_positions": torch.zeros(*shape, config.dim),
    }
    face = bundle.module("local_extractor")(given)
    prepared = bundle.module("dit_prepare")({**given, **face, **positions})
    tables = bundle.module("dit_modulate")(given)
    modulations = {f"{name}_modulation": tables[f"{name}_modulations"][0] for name in ("block", "final")}
    step, inputs = bundle.module("dit_step"), {**given, **prepared, **modulations}
    return lambda: step(inputs)["velocity"]


def _tensors(bundle: FullSize, dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: tensor.to(dtype) for name, tensor in bundle.tensors("transformer").items()}


def _diffusers(
    tensors: Mapping[str, Tensor], configs: Configs, given: Given, change: Change = _unchanged
) -> Callable[[], Tensor]:
    """A step of diffusers' network with these weights, which it shares with other networks."""
    import torch
    from diffusers import ConsisIDTransformer3DModel

    make: Any = ConsisIDTransformer3DModel
    with torch.device("meta"):
        network = make(**{name: value for name, value in configs["transformer"].items() if not name.startswith("_")})
    dtype = next(iter(tensors.values())).dtype
    state = dict(tensors)
    positions = network.state_dict().get(_POSITIONS)
    if positions is not None:
        state[_POSITIONS] = torch.zeros(positions.shape, dtype=dtype, device=given["latents"].device)
    network.load_state_dict(state, assign=True)
    network.eval().requires_grad_(False)
    change(network)
    both = torch.cat([given["latents"], given["image_latents"]], dim=2).expand(2, -1, -1, -1, -1).to(dtype)
    arguments = {
        "hidden_states": both.contiguous(),
        "encoder_hidden_states": given["text_states"].to(dtype),
        "timestep": given["timesteps"].expand(2),
        "image_rotary_emb": tuple(given[name].flatten(0, 2) for name in ("rope_cos", "rope_sin")),
        "id_cond": given["identity"].to(dtype),
        "id_vit_hidden": list(given["clip_hidden"].to(dtype)),
        "return_dict": False,
    }
    return lambda: network(**arguments)[0].float()


def _lap(call: Callable[[], object], gauge: Gauge) -> Mapping[str, float]:
    from consisid_benchmarks.gpu_run.stopwatch import Stopwatch

    watch = Stopwatch(gauge)
    watch("step")
    call()
    watch("")
    return {"step_seconds": watch.laps[0].seconds}  # the memory is that of both
