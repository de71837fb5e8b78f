"""The decode stage against diffusers' VAE and postprocessing, from latents to bytes."""

import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from consisid_runtime.errors import NotFinite
from consisid_runtime.models.configs.checkpoint import CheckpointConfig
from consisid_runtime.models.configs.vae import VAEConfig
from consisid_runtime.models.vae import DecoderFirst, DecoderNext
from consisid_runtime.options import Options
from consisid_runtime.plan import Geometry, plan
from consisid_runtime.stages.decode import Decoder

CONFIG: dict[str, Any] = {"block_out_channels": (4, 4, 8), "latent_channels": 5, "layers_per_block": 1}
CONFIG |= {"norm_num_groups": 2, "scaling_factor": 0.7}


class FakeBundle:
    """Both chunk decoders in PyTorch; remembers the largest chunk of frames."""

    def __init__(self, vae: Any) -> None:
        self.vae = vae
        self.largest = 0

    @property
    def config(self) -> CheckpointConfig:
        return CheckpointConfig({"vae": dict(self.vae.config)}.__getitem__)

    def module(self, name: str) -> Any:
        kind, prefix = {"vae_decoder_first": (DecoderFirst, ""), "vae_decoder_next": (DecoderNext, "next_")}[name]
        network: torch.nn.Module = kind(VAEConfig.from_dict(self.vae.config))
        network.load_state_dict({k: v for k, v in self.vae.state_dict().items() if k.startswith("decoder.")})

        def decode(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
            caches = [inputs[f"cache_{i}"] for i in range(len(inputs) - 1)]
            with torch.no_grad():
                frames, *left = network(inputs["latents"], *caches)
            self.largest = max(self.largest, frames.shape[2])
            return {"frames": frames} | {f"{prefix}cache_{i}": cache for i, cache in enumerate(left)}

        return decode


@pytest.fixture(scope="module")
def vae() -> Any:
    import diffusers

    build: Any = diffusers.AutoencoderKLCogVideoX
    torch.manual_seed(0)
    levels = {"down_block_types": ("CogVideoXDownBlock3D",) * 3, "up_block_types": ("CogVideoXUpBlock3D",) * 3}
    return build(**CONFIG, **levels).eval().requires_grad_(False)


@pytest.mark.parametrize("frames", [9, 17, 25])
def test_frames_are_those_of_the_reference(vae: Any, frames: int) -> None:
    import diffusers

    build: Any = diffusers.video_processor.VideoProcessor
    request = plan(Options(frames=frames, height=24, width=32), Geometry(9, 24, 32, 4, 4, 2, fixed_size=False))
    latents = 3 * torch.randn(1, request.latent_frames, 5, 6, 8)
    bundle = FakeBundle(vae)
    decoder = Decoder(bundle)  # type: ignore[arg-type]
    got, chunks = decoder(latents, request), [*decoder.chunks(latents, request)]
    assert [len(chunk) for chunk in chunks] == [9, *[8] * (frames // 8 - 1)]
    assert np.array_equal(np.concatenate(chunks), got)
    assert got.dtype == np.uint8 and got.shape == (frames, 24, 32, 3)
    assert bundle.largest == 9

    decoded = vae.decode(1 / 0.7 * latents.permute(0, 2, 1, 3, 4)).sample
    # both ends of the range must be reached, or the clamp is not tested
    assert decoded.min() < -1 and decoded.max() > 1
    (video,) = build(vae_scale_factor=4).postprocess_video(decoded, output_type="pil")
    wanted = np.stack([np.asarray(image) for image in video])
    # fp32 rounding may move a value across the middle between two levels
    differ = got != wanted
    assert differ.mean() < 1e-4
    assert np.abs(got.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_make_no_video(vae: Any, value: float) -> None:
    request = plan(Options(frames=9, height=24, width=32), Geometry(9, 24, 32, 4, 4, 2, fixed_size=False))
    bundle = FakeBundle(vae)
    latents = torch.zeros(1, request.latent_frames, 5, 6, 8)
    latents[0, -1, 0, 0, 0] = value
    with pytest.raises(NotFinite, match="the denoiser"):
        Decoder(bundle)(latents, request)  # type: ignore[arg-type]
    assert bundle.largest == 0

    decoder = Decoder(bundle)  # type: ignore[arg-type]
    decoder._first = lambda inputs: {"frames": torch.full((1, 3, 9, 24, 32), value)}
    with pytest.raises(NotFinite, match="the decoder"):
        decoder(torch.zeros_like(latents), request)


def test_on_a_cpu_a_chunk_is_yielded_before_the_next_is_decoded(vae: Any) -> None:
    request = plan(Options(frames=17, height=24, width=32), Geometry(9, 24, 32, 4, 4, 2, fixed_size=False))
    decoder, called = Decoder(FakeBundle(vae)), []  # type: ignore[arg-type]
    first, following = decoder._first, decoder._next
    frames: list[weakref.ref[Tensor]] = []

    def begin(inputs: Any) -> dict[str, Tensor]:
        outputs = first(inputs)
        frames.append(weakref.ref(outputs["frames"]))
        return outputs

    def go_on(inputs: Any) -> dict[str, Tensor]:
        called.append("next")
        assert frames[0]() is None, "two chunks of frames in floating point"
        return following(inputs)

    decoder._first, decoder._next = begin, go_on
    chunks = decoder.chunks(torch.zeros(1, request.latent_frames, 5, 6, 8), request)
    next(chunks)
    assert called == []
    next(chunks)
    assert called == ["next"]
