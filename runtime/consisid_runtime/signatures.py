"""Every module's tensors, declared once: names, dtypes, shapes.

ONNX input names and dynamic axes, `config.pbtxt`, sample inputs and run-time checks all derive from these tables.
A size is a number, a symbol, or a product such as "patch*rows". `DYNAMIC` symbols vary between requests; every other
symbol is decided by the checkpoint and replaced by its number with `Signature.bind`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

Size = int | str

DYNAMIC = {
    "branches": "guidance branches: 2 (negative, positive) or 1 without guidance",
    "images": "portrait, and the keypoint drawing where the checkpoint wants one",
    "frames": "latent frames",
    "rows": "tokens along the height",
    "columns": "tokens along the width",
    "latent_height": "latents along the height",
    "latent_width": "latents along the width",
    "steps": "denoising steps in one call",
    "image_height": "pixels of the photograph, long edge at most 1024",
    "image_width": "pixels of the photograph, long edge at most 1024",
}

# Blocks begin at multiples of it wherever a range begins: a matrix product over other rows may round differently, and
# the cut of a run must not change a bit of it.
MODULATION_BLOCK = 10
"""The most "steps" in one call: modulations are tabulated for so many at once."""


@dataclass(frozen=True, slots=True)
class Port:
    """One tensor. `dtype` is a KServe name: FP32, FP16, BF16, INT64, UINT8, BYTES. Optional inputs may be left out."""

    name: str
    dtype: str
    shape: tuple[Size, ...]
    optional: bool = False

    def bind(self, dims: Mapping[str, int]) -> Port:
        """The same port with every symbol in `dims` replaced by its number."""
        return replace(self, shape=tuple(_bind(size, dims) for size in self.shape))

    @property
    def dynamic_axes(self) -> dict[int, str]:
        """Axis → what is still symbolic there."""
        return {axis: size for axis, size in enumerate(self.shape) if isinstance(size, str)}


@dataclass(frozen=True, slots=True)
class Signature:
    """The inputs and outputs of one module, in order."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def bind(self, dims: Mapping[str, int]) -> Signature:
        return Signature(self.name, tuple(p.bind(dims) for p in self.inputs), tuple(p.bind(dims) for p in self.outputs))

    def to_json(self) -> dict[str, list[dict[str, object]]]:
        return {
            side: [{"name": p.name, "dtype": p.dtype, "shape": list(p.shape)} for p in ports]
            for side, ports in (("inputs", self.inputs), ("outputs", self.outputs))
        }

    @classmethod
    def from_json(cls, name: str, data: Mapping[str, Iterable[Mapping[str, object]]]) -> Signature:
        def ports(side: str) -> tuple[Port, ...]:
            return tuple(Port(str(p["name"]), str(p["dtype"]), tuple(p["shape"])) for p in data[side])  # type: ignore[arg-type]

        return cls(name, ports("inputs"), ports("outputs"))


def _bind(size: Size, dims: Mapping[str, int]) -> Size:
    if isinstance(size, int):
        return size
    number, symbols = 1, []
    for factor in size.split("*"):
        if factor.isdigit():
            number *= int(factor)
        elif factor in dims:
            number *= dims[factor]
        else:
            symbols.append(factor)
    if not symbols:
        return number
    return "*".join(symbols if number == 1 else [str(number), *symbols])


# tensors that cross more than one module

TEXT_STATES = Port("text_states", "FP32", ("branches", "text_length", "text_dim"))
FACE_TOKENS = Port("face_tokens", "FP32", (1, "face_tokens", "face_dim"))
PORTRAIT = Port("portrait", "UINT8", ("crop", "crop", 3))
KEYPOINTS = Port("keypoints", "FP32", (5, 2))
IMAGE_MOMENTS = Port("image_moments", "FP32", (1, "images", "2*channels", "patch*rows", "patch*columns"))
LATENTS = Port("latents", "FP32", (1, "frames", "channels", "patch*rows", "patch*columns"))
CLIP_HIDDEN = Port("clip_hidden", "FP32", ("scales", 1, "clip_tokens", "clip_dim"))

_TEXT_TOKENS = Port("text_tokens", "FP32", ("branches", "text_length", "dim"))
_IMAGE_TOKENS = Port("image_tokens", "FP32", (1, "frames", "rows", "columns", "dim"))
_FACE_KEYS = Port("face_keys", "FP32", ("face_layers", "dim", "face_slots"))
_FACE_VALUES = Port("face_values", "FP32", ("face_layers", "face_slots", "dim"))

# exported networks

ALIGNER = Signature(
    "aligner",  # RetinaFace-R50: BGR 0…255 minus its mean; raw heads, decoded and thinned by face_geometry
    inputs=(Port("image", "FP32", (1, 3, "image_height", "image_width")),),
    outputs=(
        Port("boxes", "FP32", (1, "anchors", 4)),
        Port("scores", "FP32", (1, "anchors", 2)),
        Port("landmarks", "FP32", (1, "anchors", 10)),
    ),
)
PARSER = Signature(
    "parser",  # BiSeNet: RGB normalised by ImageNet's mean and deviation; one label a pixel
    inputs=(Port("image", "FP32", (1, 3, "crop", "crop")),),
    outputs=(Port("labels", "UINT8", (1, "crop", "crop")),),
)
CLIP = Signature(
    "clip",  # EVA02-CLIP vision tower: RGB normalised by CLIP's mean and deviation
    inputs=(Port("image", "FP32", (1, 3, "clip_size", "clip_size")),),
    outputs=(Port("clip_embedding", "FP32", (1, "clip_out")), CLIP_HIDDEN),
)
LOCAL_EXTRACTOR = Signature(
    "local_extractor",
    inputs=(Port("identity", "FP32", (1, "identity_dim")), CLIP_HIDDEN),
    outputs=(FACE_TOKENS,),
)
TEXT_ENCODER = Signature(
    "text_encoder",
    inputs=(Port("token_ids", "INT64", ("branches", "text_length")),),
    outputs=(TEXT_STATES,),
)
VAE_ENCODER = Signature(
    "vae_encoder",
    inputs=(Port("image", "FP32", ("images", 3, "spatial*latent_height", "spatial*latent_width")),),
    outputs=(Port("moments", "FP32", ("images", "2*channels", "latent_height", "latent_width")),),
)
DIT_PREPARE = Signature(
    "dit_prepare",
    inputs=(
        TEXT_STATES,
        FACE_TOKENS,
        Port("image_latents", "FP32", LATENTS.shape),
        Port("text_positions", "FP32", ("text_length", "dim")),
        Port("video_positions", "FP32", ("frames", "rows", "columns", "dim")),
    ),
    outputs=(_TEXT_TOKENS, _IMAGE_TOKENS, _FACE_KEYS, _FACE_VALUES),
)
_BLOCK_MODULATION = Port("block_modulation", "FP32", ("blocks", 2, 6, "dim"))
_FINAL_MODULATION = Port("final_modulation", "FP32", (2, "dim"))
DIT_MODULATE = Signature(
    "dit_modulate",
    inputs=(Port("timesteps", "INT64", ("steps",)),),
    outputs=(
        Port("block_modulations", "FP32", ("steps", *_BLOCK_MODULATION.shape)),
        Port("final_modulations", "FP32", ("steps", *_FINAL_MODULATION.shape)),
    ),
)
DIT_STEP = Signature(
    "dit_step",
    inputs=(
        LATENTS,
        _BLOCK_MODULATION,
        _FINAL_MODULATION,
        _TEXT_TOKENS,
        _IMAGE_TOKENS,
        _FACE_KEYS,
        _FACE_VALUES,
        Port("rope_cos", "FP32", ("frames", "rows", "columns", "head_dim")),
        Port("rope_sin", "FP32", ("frames", "rows", "columns", "head_dim")),
    ),
    outputs=(Port("velocity", "FP32", ("branches", *LATENTS.shape[1:])),),
)


def vae_decoder(caches: Iterable[tuple[int, int, int]], dtype: str = "FP32") -> tuple[Signature, Signature]:
    """Signatures of the decoder's first and next chunk.

    Args:
        caches: (channels, frames, scale) of each carried cache, in the network's order; `scale` multiplies the latents'
            height and width. Which exist depends on the VAE's configuration: `models.vae.decoder_caches`.
        dtype: of the caches: that of the weights, in which they are made and read.
    """

    def cache_ports(prefix: str) -> tuple[Port, ...]:
        return tuple(
            Port(f"{prefix}{i}", dtype, (1, channels, frames, f"{scale}*latent_height", f"{scale}*latent_width"))
            for i, (channels, frames, scale) in enumerate(caches)
        )

    caches = tuple(caches)

    def latents(count: int) -> Port:
        return Port("latents", "FP32", (1, "channels", count, "latent_height", "latent_width"))

    def frames(count: Size) -> Port:
        return Port("frames", "FP32", (1, 3, count, "spatial*latent_height", "spatial*latent_width"))

    # Three latents give 2·temporal + 1 frames, two give 2·temporal.
    first = Signature("vae_decoder_first", (latents(3),), (frames("first_chunk"), *cache_ports("cache_")))
    following = Signature(
        "vae_decoder_next",
        (latents(2), *cache_ports("cache_")),
        (frames("2*temporal"), *cache_ports("next_cache_")),
    )
    return first.bind({}), following.bind({})


def networks(caches: Iterable[tuple[int, int, int]], cache_dtype: str = "FP32") -> tuple[Signature, ...]:
    """Every exported network's signature; `caches` and their dtype as for `vae_decoder`."""
    return (
        ALIGNER,
        PARSER,
        CLIP,
        LOCAL_EXTRACTOR,
        TEXT_ENCODER,
        VAE_ENCODER,
        *vae_decoder(caches, cache_dtype),
        DIT_PREPARE,
        DIT_MODULATE,
        DIT_STEP,
    )


# served models

_IMAGE_FILE = Port("image", "UINT8", ("bytes",))
_PROMPT = Port("prompt", "BYTES", (1,))
_VIDEO = Port("video", "UINT8", ("mp4_bytes",))
_RAW = Port("frames", "UINT8", ("video_frames", "height", "width", 3))
_FACE_INFO = Port("face_info", "BYTES", (1,))
_TEXT_INFO = Port("text_info", "BYTES", (1,))
_DENOISE_INFO = Port("denoise_info", "BYTES", (1,))
_ENCODE_INFO = Port("encode_info", "BYTES", (1,))
_INFO = Port("info", "BYTES", (1,))

# What the recogniser sees in a face. Asked to embed, the face stage returns it of an image's largest face, and no more.
EMBEDDING = Port("embedding", "FP32", ("embedding_dim",))
EMBED = Port("embed", "INT64", (1,), optional=True)

# Each stage takes the info of the one before, so that the ensemble runs one at a time: where one of two parallel steps
# fails, Triton server 2.51 hangs or dies of it. The first takes all that a user sends: a bad request ends there.
FACE_MODEL = Signature("face", (_IMAGE_FILE, _PROMPT, EMBED), (FACE_TOKENS, PORTRAIT, KEYPOINTS, EMBEDDING, _FACE_INFO))
TEXT_MODEL = Signature("text", (_PROMPT, _FACE_INFO), (TEXT_STATES, _TEXT_INFO))
ENCODE_MODEL = Signature("encode", (PORTRAIT, KEYPOINTS, _TEXT_INFO), (IMAGE_MOMENTS, _ENCODE_INFO))
# With a span it takes these steps alone, from where the outputs of the range before left off; without, all.
X0 = Port("x0", "FP32", LATENTS.shape)
GENERATOR = Port("generator", "UINT8", ("generator_bytes",))
_STATE = (LATENTS, X0, GENERATOR)
SPAN = Port("span", "INT64", (2,), optional=True)
DENOISE_MODEL = Signature(
    "denoise",
    (TEXT_STATES, FACE_TOKENS, IMAGE_MOMENTS, *(replace(port, optional=True) for port in _STATE), SPAN),
    (*_STATE, _DENOISE_INFO),
)
DECODE_MODEL = Signature(
    "decode", (LATENTS, _FACE_INFO, _TEXT_INFO, _ENCODE_INFO, _DENOISE_INFO), (_VIDEO, _RAW, _INFO)
)
ENSEMBLE = Signature("consisid", (_IMAGE_FILE, _PROMPT), (_VIDEO, _RAW, _INFO))
STREAM = Signature(
    "consisid_stream",  # decoupled: responses with an event, and with preview and checkpoint where due; then the video
    (
        replace(_IMAGE_FILE, optional=True),
        replace(_PROMPT, optional=True),
        Port("checkpoint", "UINT8", ("checkpoint_bytes",), optional=True),
    ),
    (
        Port("event", "BYTES", (1,)),
        Port("preview", "UINT8", ("jpeg_bytes",)),
        Port("checkpoint", "UINT8", ("checkpoint_bytes",)),
        *ENSEMBLE.outputs,
    ),
)
