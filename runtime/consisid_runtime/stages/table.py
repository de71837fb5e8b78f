"""The table of a request's stages: their order, what each takes and returns, how each is made and called.

The pipeline, the served models, calibration runs and benchmarks all walk it. Importing it loads no network.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consisid_runtime.events import Progress, silent
from consisid_runtime.plan import Plan
from consisid_runtime.signatures import (
    DECODE_MODEL,
    DENOISE_MODEL,
    ENCODE_MODEL,
    FACE_MODEL,
    TEXT_MODEL,
    Signature,
)
from consisid_runtime.wire import TRIAL

if TYPE_CHECKING:
    from consisid_runtime.bundle import Modules

Values = dict[str, Any]
"""Inputs and outputs of stages by port name: bytes of an image or an MP4, text, float32 tensors, uint8 arrays.

`wire.TRIAL` is True where the image shows nobody: see `stages.trial`.
"""

Info = dict[str, Any]
"""What a stage reports beside its outputs; part of the video's `info`."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage.

    Attributes:
        signature: its name, and the tensors it takes and returns where it is served; `wire` converts them.
        load: makes it from a bundle's modules.
        call: runs it once: (what `load` made, values, plan, progress) → its outputs and what it reports.
    """

    signature: Signature
    load: Callable[[Modules], Any]
    call: Callable[[Any, Values, Plan, Progress], tuple[Values, Info]]

    @property
    def name(self) -> str:
        return self.signature.name


def load(modules: Modules, names: Collection[str] | None = None) -> dict[str, Any]:
    """The stages of these names, None for all, made from a bundle's modules: name → loaded stage."""
    return {stage.name: stage.load(modules) for stage in STAGES if names is None or stage.name in names}


def run(
    loaded: Mapping[str, Any],
    values: Values,
    plan: Plan,
    progress: Progress = silent,
    *,
    names: Collection[str] | None = None,
) -> dict[str, Info]:
    """Run loaded stages in the table's order.

    Args:
        values: the inputs of the first; gets the outputs of each.
        progress: called with (stage, 0, 1) when a stage begins, and by `denoise` after each step.
        names: run these alone; None for all that are loaded.

    Returns what each stage reports, with its wall time as "seconds".
    """
    reports = {}
    for stage in STAGES:
        if stage.name in (loaded if names is None else names):
            progress(stage.name, 0, 1)
            begin = time.perf_counter()
            outputs, info = stage.call(loaded[stage.name], values, plan, progress)
            values |= outputs
            reports[stage.name] = {**info, "seconds": time.perf_counter() - begin}
    return reports


def _load_face(modules: Modules) -> Any:
    from consisid_runtime.stages.face.reader import FaceReader

    return FaceReader(modules)


def _face(reader: Any, values: Values, plan: Plan, progress: Progress) -> tuple[Values, Info]:
    import torch

    if "embed" in values:
        return {"embedding": torch.from_numpy(reader.embed(values["image"]))}, {}
    face = reader(values["image"], plan, trial=values.get(TRIAL, False))
    keypoints, embedding = torch.from_numpy(face.keypoints), torch.from_numpy(face.embedding)
    outputs = {"face_tokens": face.tokens, "portrait": face.portrait, "keypoints": keypoints, "embedding": embedding}
    return outputs, face.info


def _load_text(modules: Modules) -> Any:
    from consisid_runtime.stages.text import TextReader

    return TextReader(modules)


def _text(reader: Any, values: Values, plan: Plan, progress: Progress) -> tuple[Values, Info]:
    text = reader(values["prompt"], plan)
    return {"text_states": text.states}, text.info


def _load_encode(modules: Modules) -> Any:
    from consisid_runtime.stages.encode import Encoder

    return Encoder(modules)


def _encode(encoder: Any, values: Values, plan: Plan, progress: Progress) -> tuple[Values, Info]:
    import numpy as np

    return {"image_moments": encoder(values["portrait"], np.asarray(values["keypoints"]), plan)}, {}


def _load_denoise(modules: Modules) -> Any:
    from consisid_runtime.stages.denoise import Denoiser

    return Denoiser(modules)


def _denoise(denoiser: Any, values: Values, plan: Plan, progress: Progress) -> tuple[Values, Info]:
    conditions = (values[name] for name in ("text_states", "face_tokens", "image_moments"))
    latents, state = denoiser.take(_range(values), *conditions, plan, progress)
    return {"latents": latents, "x0": state.x0, "generator": state.generator}, {
        "computed_steps": sum(plan.computed),
        "guided_steps": sum(plan.computed[: plan.guided_steps]),
        **denoiser.choices,
    }


def _range(values: Values) -> Any:
    """The part of the run that the values name; None for the whole."""
    if "span" not in values:
        return None
    import torch

    from consisid_runtime.stages.denoise import Range, SolverState

    first, last = (int(step) for step in values["span"])
    if first == 0 or not {"latents", "x0", "generator"} <= values.keys():
        return Range(range(first, last))
    latents, x0, generator = (torch.as_tensor(values[name]) for name in ("latents", "x0", "generator"))
    return Range(range(first, last), latents, SolverState(x0, generator))


def _load_decode(modules: Modules) -> Any:
    from consisid_runtime.provenance.hooks import Watermark
    from consisid_runtime.stages.decode import Decoder

    return Decoder(modules, Watermark.of_environment())


def _decode(decoder: Any, values: Values, plan: Plan, progress: Progress) -> tuple[Values, Info]:
    from consisid_runtime.mp4 import encode_beside
    from consisid_runtime.provenance.marks import marks

    shape = plan.frames, plan.height, plan.width, 3
    watermark = decoder.watermark.info if decoder.watermark else None
    said = marks(plan, decoder.fingerprint, watermark)
    frames, mp4 = encode_beside(decoder.marked_chunks(values["latents"], plan), shape, plan.options.fps, said)
    return {"frames": frames, "video": mp4}, {"watermark": watermark} if watermark else {}


STAGES = (
    Stage(FACE_MODEL, _load_face, _face),
    Stage(TEXT_MODEL, _load_text, _text),
    Stage(ENCODE_MODEL, _load_encode, _encode),
    Stage(DENOISE_MODEL, _load_denoise, _denoise),
    Stage(DECODE_MODEL, _load_decode, _decode),
)
