"""Ours and diffusers, as suite `pipeline` runs them: the same frames from the same face features and prompt."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from consisid_runtime.bundle import Bundle
from consisid_runtime.engines import Engine
from consisid_runtime.plan import Plan
from consisid_runtime.stages import table

_TO_LATENTS = ("text", "encode", "denoise")


@dataclass(frozen=True, slots=True)
class Features:
    """The outputs of the face networks for one portrait, in the form that both the reference and ours accept.

    Attributes:
        identity: float32 [1, identity_dim], embeddings of ArcFace and CLIP (`id_cond`).
        clip_hidden: float32 [scales, 1, clip_tokens, clip_dim] (`id_vit_hidden`).
        portrait: uint8 [512, 512, 3] RGB.
        keypoints: float32 [5, 2].
    """

    identity: NDArray[np.float32]
    clip_hidden: NDArray[np.float32]
    portrait: NDArray[np.uint8]
    keypoints: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TimedVideo:
    """A video, uint8 [frames, height, width, 3] RGB, and its times.

    These are "total_seconds", "step_seconds" and "after_steps_seconds". "step_seconds" is the median over all steps but
    the first, which includes the preparation. After the last step come the decoder and the conversion to uint8.
    """

    frames: NDArray[np.uint8]
    seconds: dict[str, float]


def read_features(bundle: Path, photo: bytes, plan: Plan, *, threads: int) -> Features:
    """The features of the portrait in `photo`, the bytes of an image file, from the bundle's face networks."""
    recording = _RecordingBundle(Bundle.open(bundle, device="cpu", threads=threads))
    values: table.Values = {"image": photo}
    table.run(table.load(cast(Bundle, recording), ("face",)), values, plan)
    inputs = {name: tensor.numpy(force=True) for name, tensor in recording.inputs.items()}
    return Features(inputs["identity"], inputs["clip_hidden"], values["portrait"], values["keypoints"].numpy())


class Ours:
    """The stages of a bundle after the face networks, including the local facial extractor as in the reference."""

    def __init__(self, bundle: Path, *, threads: int) -> None:
        torch.set_num_threads(threads)
        opened = Bundle.open(bundle, device="cpu", threads=threads)
        self._extract = opened.module("local_extractor")
        self._stages = table.load(opened, (*_TO_LATENTS, "decode"))

    def __call__(self, features: Features, prompt: str, plan: Plan) -> TimedVideo:
        clock = _Clock()
        tokens = self._extract(
            {"identity": torch.from_numpy(features.identity), "clip_hidden": torch.from_numpy(features.clip_hidden)}
        )["face_tokens"]
        values: table.Values = {
            "face_tokens": tokens,
            "prompt": prompt,
            "portrait": features.portrait,
            "keypoints": torch.from_numpy(features.keypoints),
        }
        table.run(self._stages, values, plan, clock.progress, names=_TO_LATENTS)
        # Without the MP4, which the reference does not write either.
        return clock.stop(self._stages["decode"](values["latents"], plan))


class Diffusers:
    """`ConsisIDPipeline` in fp32 on the same number of threads, without autograd.

    Args:
        compiled: compile transformer and decoder with `torch.compile`; the first video then takes minutes, and needs a
            C++ compiler.
    """

    def __init__(self, checkpoint: Path, *, threads: int, compiled: bool = False) -> None:
        import diffusers
        import transformers

        for library in (diffusers, transformers):
            library.utils.logging.disable_progress_bar()
        torch.set_num_threads(threads)
        load: Any = diffusers.ConsisIDPipeline.from_pretrained
        self._pipeline = load(checkpoint, dtype=torch.float32, local_files_only=True, low_cpu_mem_usage=False)
        self._pipeline.set_progress_bar_config(disable=True)
        if compiled:
            self._pipeline.transformer = torch.compile(self._pipeline.transformer)
            self._pipeline.vae.decoder = torch.compile(self._pipeline.vae.decoder)

    @torch.inference_mode()
    def __call__(self, features: Features, prompt: str, plan: Plan) -> TimedVideo:
        from PIL import Image

        options = plan.options
        clock = _Clock()
        video = self._pipeline(
            image=Image.fromarray(features.portrait),
            prompt=prompt,
            negative_prompt=options.negative_prompt,
            height=plan.height,
            width=plan.width,
            num_frames=plan.frames,
            num_inference_steps=plan.steps,
            guidance_scale=plan.guidance,
            use_dynamic_cfg=options.dynamic_guidance,
            generator=torch.Generator().manual_seed(options.seed),
            max_sequence_length=self._pipeline.transformer.config.max_text_seq_length,
            id_cond=torch.from_numpy(features.identity),
            id_vit_hidden=list(torch.from_numpy(features.clip_hidden)),
            kps_cond=features.keypoints,
            # Tensors instead of PIL images, whose conversion would only add to the reference's time.
            output_type="pt",
            callback_on_step_end=clock.callback,
            callback_on_step_end_tensor_inputs=[],
        ).frames[0]
        frames = (video * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
        return clock.stop(frames)


class _Clock:
    def __init__(self) -> None:
        self._begin = time.perf_counter()
        self._steps: list[float] = []

    def progress(self, stage: str, done: int, total: int) -> None:
        if stage == "denoise" and done:
            self._steps.append(time.perf_counter())

    def callback(self, pipeline: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        self._steps.append(time.perf_counter())
        return tensors

    def stop(self, frames: NDArray[np.uint8]) -> TimedVideo:
        end = time.perf_counter()
        step = median(later - earlier for earlier, later in pairwise(self._steps))
        seconds = {
            "total_seconds": end - self._begin,
            "step_seconds": step,
            "after_steps_seconds": end - self._steps[-1],
        }
        return TimedVideo(frames, seconds)


class _RecordingBundle:
    """A bundle that records the latest inputs of its local facial extractor."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self.inputs: dict[str, torch.Tensor] = {}

    def module(self, name: str) -> Engine:
        engine = self._bundle.module(name)
        if name != "local_extractor":
            return engine

        def record(inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            self.inputs = dict(inputs)
            return engine(inputs)

        return record

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bundle, name)
