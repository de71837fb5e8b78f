"""Runs every stage of a bundle alone, its networks loaded first, as a request of 50 steps with guidance does.

No input is constant: a GPU is faster at zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from consisid_benchmarks.fake_gpu.full_size import FullSize
from consisid_runtime.models.networks import CROP
from consisid_runtime.options import Options
from consisid_runtime.plan import Plan, plan
from consisid_runtime.stages import denoise
from consisid_runtime.stages.decode import Decoder
from consisid_runtime.stages.denoise import Denoiser
from consisid_runtime.stages.encode import Encoder

STEPS = 3
"""Denoising steps: the first of a block of modulations, one more, and the one that is counted or timed."""
PHOTOGRAPH = 1024
"""Edge of the picture that the aligner sees: the largest that the runtime gives it."""
FP8 = "fp8/"
"""Before the names of the parts of denoising, where its step has linear layers of E4M3 numbers."""
_TOKENS = 32
"""Token ids that every vocabulary has."""

Begin = Callable[[str], None]
MakeInput = Callable[..., Tensor]
"""Sizes → a float32 tensor on the device."""


def run_stages(bundle: FullSize, given: MakeInput, begin: Begin, only: str = "", steps: int = STEPS) -> None:
    """Loads and runs the stages whose name begins with `only`, one after the other; each is freed before the next.

    Args:
        given: makes the inputs that another stage would leave on the device.
        begin: called with "load/STAGE" before a stage's networks are loaded, with "STAGE" before it runs, and with ""
            when its work is done. Denoising is "denoise/start", "denoise/first-step" (with the modulations of a block
            of steps) and "denoise/step", the last one; those between are "".
        steps: denoising steps that are run, of the request's 50; at least 2.
    """
    request = plan(Options(), bundle.config.geometry)
    for name, stage in STAGES.items():
        if name.startswith(only):
            for _ in stage(bundle, request, given, begin, steps):
                begin("")


def _face(bundle: FullSize, request: Plan, given: MakeInput, begin: Begin, steps: int) -> Iterator[None]:
    """The four networks on this project's engines; insightface's detector and recogniser run on the CPU."""
    begin("load/face")
    networks = {name: bundle.module(name) for name in ("aligner", "parser", "clip", "local_extractor")}
    size = int(bundle.signature("clip").inputs[0].shape[-1])
    identity, hidden = (port.shape for port in bundle.signature("local_extractor").inputs)
    yield
    begin("face")
    networks["aligner"]({"image": torch.rand(1, 3, PHOTOGRAPH, PHOTOGRAPH)})["scores"].cpu()
    networks["parser"]({"image": torch.rand(1, 3, CROP, CROP)})["labels"].cpu()
    networks["clip"]({"image": torch.rand(1, 3, size, size)})
    networks["local_extractor"]({"identity": given(*identity), "clip_hidden": given(*hidden)})
    yield


def _text(bundle: FullSize, request: Plan, given: MakeInput, begin: Begin, steps: int) -> Iterator[None]:
    """The prompt alone: the negative one's states are kept from an earlier request."""
    begin("load/text")
    encoder = bundle.module("text_encoder")
    yield
    begin("text")
    length = bundle.config.transformer.max_text_seq_length
    encoder({"token_ids": torch.arange(length).remainder(_TOKENS)[None]})
    yield


def _encode(bundle: FullSize, request: Plan, given: MakeInput, begin: Begin, steps: int) -> Iterator[None]:
    begin("load/encode")
    encoder = Encoder(bundle)
    portrait = np.random.default_rng(0).integers(256, size=(CROP, CROP, 3), dtype=np.uint8)
    yield
    begin("encode")
    encoder(portrait, np.zeros((5, 2), np.float32), request)
    yield


def _denoise(bundle: FullSize, request: Plan, given: MakeInput, begin: Begin, steps: int) -> Iterator[None]:
    transformer = bundle.config.transformer
    length = transformer.max_text_seq_length
    tokens = request.latent_frames * request.rows * request.columns
    extractor = bundle.signature("local_extractor").outputs[0].shape
    latents = _latents(bundle, request)
    begin("load/denoise")
    learned = {"pos_embedding": torch.zeros(1, length + tokens, transformer.dim, dtype=torch.bfloat16)}
    with mock.patch.object(denoise, "load_file", lambda _: learned):
        denoiser = Denoiser(bundle)
    yield
    moments = given(1, 1, 2 * latents[2], *latents[3:])
    text, face = given(2, length, transformer.text_embed_dim), given(*extractor)
    begin("denoise/start")
    conditions, noise, state, schedule = denoiser.start(text, face, moments, request)
    yield
    labels = ["denoise/first-step", *[""] * (steps - 2), "denoise/step", ""]
    begin(labels[0])
    progress = lambda stage, done, total: begin(labels[done])  # noqa: E731
    denoiser.run(conditions, noise, state, request, schedule, range(steps), progress)
    yield


def _decode(bundle: FullSize, request: Plan, given: MakeInput, begin: Begin, steps: int) -> Iterator[None]:
    begin("load/decode")
    decoder = Decoder(bundle)
    yield
    latents = given(*_latents(bundle, request))
    begin("decode")
    decoder(latents, request)
    yield


def _latents(bundle: FullSize, request: Plan) -> tuple[int, ...]:
    """Shape of a request's latents."""
    spatial, channels = bundle.config.vae.spatial, bundle.config.vae.latent_channels
    return 1, request.latent_frames, channels, request.height // spatial, request.width // spatial


STAGES: dict[str, Callable[[FullSize, Plan, MakeInput, Begin, int], Iterator[Any]]] = {
    "face": _face,
    "text": _text,
    "encode": _encode,
    "denoise": _denoise,
    "decode": _decode,
}
"""Stage → a generator that yields when its networks are loaded and after each of its parts."""
