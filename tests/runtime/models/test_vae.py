"""The VAE against diffusers' AutoencoderKLCogVideoX, random weights, whole and chunk by chunk."""

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor

from consisid_kernels import reference as operators
from consisid_runtime import signatures
from consisid_runtime.errors import CheckpointInvalid
from consisid_runtime.models import cpu_decoder
from consisid_runtime.models.configs.vae import VAEConfig, decoder_caches
from consisid_runtime.models.cpu_decoder import CpuDecoder
from consisid_runtime.models.fused.decoder import ChannelsLastDecoder
from consisid_runtime.models.in_place_decoder import InPlaceDecoder
from consisid_runtime.models.vae import Chunk, DecoderFirst, DecoderNext
from consisid_runtime.models.vae_encoder import VAEEncoder

CONFIGS: dict[str, dict[str, Any]] = {
    "4 levels": {"block_out_channels": (4, 4, 8, 8), "layers_per_block": 1},
    "3 levels": {"block_out_channels": (4, 8, 8), "layers_per_block": 2},
    # diffusers gives its quantisation convolutions the image's channels: they fit latents of 3 only
    "quant": {"block_out_channels": (4, 8), "latent_channels": 3, "temporal_compression_ratio": 2}
    | {"use_quant_conv": True, "use_post_quant_conv": True, "layers_per_block": 1},
}


def reference(changes: dict[str, Any]) -> Any:
    import diffusers

    build: Any = diffusers.AutoencoderKLCogVideoX
    torch.manual_seed(0)
    levels = len(changes["block_out_channels"])
    config = {
        "down_block_types": ("CogVideoXDownBlock3D",) * levels,
        "up_block_types": ("CogVideoXUpBlock3D",) * levels,
        "latent_channels": 5,
        "norm_num_groups": 2,
        "norm_eps": 1e-4,
    }
    vae = build(**(config | changes)).eval().requires_grad_(False)
    for name, weight in vae.named_parameters():
        if "norm" in name and weight.ndim == 1:
            weight.add_(0.3 * torch.randn_like(weight))
    return vae


def part(module: torch.nn.Module, vae: Any) -> Any:
    """Our half of the VAE with all of the reference's parameters of that half."""
    names = {name.split(".")[0] for name in module.state_dict()}
    module.load_state_dict({k: v for k, v in vae.state_dict().items() if k.split(".")[0] in names})
    return module.eval().requires_grad_(False)


def error(got: Tensor, wanted: Tensor) -> float:
    assert got.shape == wanted.shape
    return float((got.double() - wanted.double()).norm() / wanted.double().norm())


@pytest.fixture(scope="module", params=list(CONFIGS))
def vae(request: pytest.FixtureRequest) -> Any:
    return reference(CONFIGS[request.param])


def test_keys_are_the_checkpoints(vae: Any) -> None:
    config = VAEConfig.from_dict(vae.config)
    ours = {k: v.shape for module in (VAEEncoder(config), DecoderFirst(config)) for k, v in module.state_dict().items()}
    assert ours == {k: v.shape for k, v in vae.state_dict().items()}
    assert DecoderNext(config).state_dict().keys() == DecoderFirst(config).state_dict().keys()


def test_encoder(vae: Any) -> None:
    config = VAEConfig.from_dict(vae.config)
    images = torch.rand(2, 3, 5 * config.spatial, 3 * config.spatial) * 2 - 1
    moments = part(VAEEncoder(config), vae)(images)
    wanted = vae.encode(images[:, :, None]).latent_dist.parameters[:, :, 0]
    assert error(moments, wanted) < 2e-6


@pytest.mark.parametrize("frames", [3, 5, 7])
def test_decoder(vae: Any, frames: int) -> None:
    config = VAEConfig.from_dict(vae.config)
    latents = torch.randn(1, config.latent_channels, frames, 3, 5)
    first, following = part(DecoderFirst(config), vae), part(DecoderNext(config), vae)
    video, *caches = first(latents[:, :, :3])
    assert [(1, c, t, 3 * s, 5 * s) for c, t, s in decoder_caches(config)] == [tuple(cache.shape) for cache in caches]
    chunks = [video]
    for start in range(3, frames, 2):
        video, *caches = following(latents[:, :, start : start + 2], *caches)
        chunks.append(video)
    assert [c.shape[2] for c in chunks] == [2 * config.temporal + 1] + [2 * config.temporal] * ((frames - 3) // 2)
    assert error(torch.cat(chunks, 2), vae.decode(latents).sample) < 2e-6


@pytest.mark.parametrize(("frames", "at_once"), [(3, None), (7, None), (7, 1), (5, 2 * 1920)])
def test_the_form_for_processors_is_the_same_function(
    vae: Any, frames: int, at_once: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64 rounding is out of the way: what is left would be another formula. 3 latents make an odd chunk.

    Operators get all frames at once, one frame or pair of them, or a few.
    """
    if at_once:
        monkeypatch.setattr(cpu_decoder, "_AT_ONCE", at_once)
    config = VAEConfig.from_dict(vae.config)
    latents = torch.randn(1, config.latent_channels, frames, 3, 5, dtype=torch.float64)
    plain = [part(kind(config), vae).double() for kind in (DecoderFirst, DecoderNext)]
    own = [CpuDecoder(part(kind(config), vae).double()) for kind in (DecoderFirst, DecoderNext)]
    found, caches = own[0](latents[:, :, :3]), plain[0](latents[:, :, :3])
    places = [cache.data_ptr() for cache in found[1:]]
    for start in range(3, frames, 2):
        chunk = latents[:, :, start : start + 2]
        found, caches = own[1](chunk, *found[1:]), plain[1](chunk, *caches[1:])
    # The plain form gives float32.
    for ours, wanted in zip(found, caches, strict=True):
        assert error(ours.float(), wanted) < 1e-7
    assert [cache.data_ptr() for cache in found[1:]] == places
    assert all(cache.untyped_storage().nbytes() == cache.nbytes for cache in found[1:])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "make", [InPlaceDecoder, partial(ChannelsLastDecoder, operators=operators)], ids=["in place", "channels last"]
)
def test_the_forms_of_little_memory_are_the_same_function(
    vae: Any, make: Callable[[Any], torch.nn.Module], dtype: torch.dtype
) -> None:
    """Seven latents: the first chunk, the next one, and one that gets caches in memory that was used before.

    A CPU's SiLU differs in its last bit between memory that is contiguous and memory that is not.
    """
    config = VAEConfig.from_dict(vae.config)
    latents = torch.randn(1, config.latent_channels, 7, 3, 5)
    kinds = DecoderFirst, DecoderNext
    plain, exact = ([part(kind(config), vae).to(to) for kind in kinds] for to in (dtype, torch.float64))
    lean = [make(part(kind(config), vae).to(dtype)) for kind in kinds]
    found, wanted, true = (form[0](latents[:, :, :3]) for form in (lean, plain, exact))
    places = [cache.data_ptr() for cache in found[1:]]
    for start in (3, 5, None):
        for ours, theirs, right in zip(found, wanted, true, strict=True):
            assert error(ours.float(), theirs) <= max(error(theirs, right), 1e-7)
        assert found[0].dtype == torch.float32 and {cache.dtype for cache in found[1:]} == {dtype}
        assert [cache.data_ptr() for cache in found[1:]] == places
        # No cache keeps the features alive that it was cut from.
        assert all(c.untyped_storage().nbytes() == c.nbytes for c in found[1:])
        if start is not None:
            chunk = latents[:, :, start : start + 2]
            found, wanted, true = (
                form[1](chunk, *of[1:]) for form, of in ((lean, found), (plain, wanted), (exact, true))
            )


def test_features_in_channels_last_are_never_converted(vae: Any) -> None:
    """Every convolution gets its input and its weights in channels-last, which the fused norm's output is."""
    config = VAEConfig.from_dict(vae.config)
    network = ChannelsLastDecoder(part(DecoderFirst(config), vae), operators)
    last = {4: torch.channels_last, 5: torch.channels_last_3d}
    seen: list[bool] = []

    def look(layer: torch.nn.Module, given: tuple[Tensor]) -> None:
        weight: Any = layer.weight
        seen.extend(tensor.is_contiguous(memory_format=last[tensor.dim()]) for tensor in (given[0], weight))

    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Conv3d):
            layer.register_forward_pre_hook(look)
    network(torch.randn(1, config.latent_channels, 3, 3, 5))
    assert len(seen) > 40
    assert all(seen)


@pytest.mark.parametrize("time", [1, 2, 4])
@pytest.mark.parametrize("first", [True, False])
def test_frames_repeat_as_nearest_neighbours(time: int, first: bool) -> None:
    latents = torch.randn(1, 3, 3, 2, 5)
    wanted = torch.nn.functional.interpolate(latents, scale_factor=(float(time), 1.0, 1.0))
    found = Chunk(latents, () if first else (latents,)).in_time(latents, time)
    assert torch.equal(found, wanted[:, :, time - 1 :] if first else wanted)


def test_full_size_carries_38_caches() -> None:
    full = {"block_out_channels": [128, 256, 256, 512], "layers_per_block": 3, "latent_channels": 16}
    rest = {"norm_num_groups": 32, "temporal_compression_ratio": 4, "scaling_factor": 0.7}
    caches = decoder_caches(VAEConfig.from_dict(full | rest))
    assert len(caches) == 38
    # facts measured upstream at 480×720 in 16 bits: 2.81 GB
    assert sum(c * t * s * s * 60 * 90 for c, t, s in caches) * 2 == pytest.approx(2.81e9, rel=2e-3)


@pytest.mark.proof  # half a minute; in the exported bundle, `test_parity` runs them at several sizes
# torch.onnx itself still uses torch's deprecated LeafSpec
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_onnx_sizes_stay_dynamic(tmp_path: Path) -> None:
    """Encoder, first and next chunk exported once, run by ONNX Runtime at other sizes."""
    vae = reference({"block_out_channels": (4, 8), "layers_per_block": 1, "temporal_compression_ratio": 2})
    config = VAEConfig.from_dict(vae.config)
    specs = signatures.vae_decoder(decoder_caches(config))
    encoder, first = part(VAEEncoder(config), vae), part(DecoderFirst(config), vae)
    following = part(DecoderNext(config), vae)

    def sizes(h: int, w: int) -> dict[str, int]:
        dims = {"latent_height": h, "latent_width": w, "images": 2, "channels": config.latent_channels}
        return dims | {"spatial": config.spatial, "temporal": config.temporal}

    def inputs(signature: signatures.Signature, h: int, w: int) -> list[Tensor]:
        bound = signature.bind(sizes(h, w)).inputs
        return [torch.randn([int(size) for size in port.shape]) for port in bound]

    for module, signature in ((encoder, signatures.VAE_ENCODER), (first, specs[0]), (following, specs[1])):
        fixed = signature.bind({k: v for k, v in sizes(0, 0).items() if k in ("channels", "spatial", "temporal")})
        path = tmp_path / f"{signature.name}.onnx"
        axes = [{axis: torch.export.Dim.DYNAMIC for axis in port.dynamic_axes} for port in fixed.inputs]
        torch.onnx.export(
            module,
            tuple(inputs(signature, 4, 6)),
            path,
            dynamo=True,
            opset_version=23,
            verbose=False,
            input_names=[port.name for port in fixed.inputs],
            output_names=[port.name for port in fixed.outputs],
            dynamic_shapes=(axes[0], tuple(axes[1:])) if len(axes) > 1 else axes,
        )
        graph = onnx.load(path).graph
        assert "Resize" not in {node.op_type for node in graph.node}
        for value, port in zip(graph.input, fixed.inputs, strict=True):
            dynamic = {i for i, dim in enumerate(value.type.tensor_type.shape.dim) if dim.dim_param}
            assert (value.name, dynamic) == (port.name, set(port.dynamic_axes))
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        feeds = inputs(signature, 3, 8)
        got = session.run(None, {p.name: x.numpy() for p, x in zip(fixed.inputs, feeds, strict=True)})
        wanted = module(*feeds)
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        assert len(got) == len(wanted) == len(fixed.outputs)
        assert max(error(torch.from_numpy(g), w) for g, w in zip(got, wanted, strict=True)) < 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"act_fn": "gelu"}, "act_fn"),
        ({"temporal_compression_ratio": 3}, "temporal_compression_ratio"),
        ({"temporal_compression_ratio": 16}, "temporal_compression_ratio"),
        ({"norm_num_groups": 3}, "norm_num_groups"),
        ({"shift_factor": 0.1}, "shift_factor"),
    ],
)
def test_unknown_configuration_is_refused(change: dict[str, Any], message: str) -> None:
    good = {"block_out_channels": [4, 8], "layers_per_block": 1, "latent_channels": 4, "norm_num_groups": 2}
    good |= {"temporal_compression_ratio": 2, "scaling_factor": 0.7}
    good |= {"down_block_types": ["CogVideoXDownBlock3D"] * 2, "up_block_types": ["CogVideoXUpBlock3D"] * 2}
    VAEConfig.from_dict(good)
    with pytest.raises(CheckpointInvalid, match=message):
        VAEConfig.from_dict(good | change)


def test_missing_entries_have_the_references_defaults() -> None:
    from diffusers import AutoencoderKLCogVideoX

    defaults = {name: p.default for name, p in inspect.signature(AutoencoderKLCogVideoX.__init__).parameters.items()}
    found = VAEConfig.from_dict({})
    assert (found.channels, found.scaling_factor) == (defaults["block_out_channels"], defaults["scaling_factor"])
    assert found == VAEConfig.from_dict({name: value for name, value in defaults.items() if name != "self"})
