"""Generates the video of a case in any variant, stage by stage; reads each portrait once."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from consisid_fidelity.nano.damage import SATURATION, float8_step, rounded_step
from consisid_fidelity.nano.evaluation_set import Case, png
from consisid_fidelity.nano.variants import EXACT, Variant
from consisid_runtime.bundle import Bundle
from consisid_runtime.engines import Engine
from consisid_runtime.errors import NoFace
from consisid_runtime.models.networks import WeightReader
from consisid_runtime.mp4 import Frames
from consisid_runtime.options import Options
from consisid_runtime.pipeline import Pipeline
from consisid_runtime.plan import Plan
from consisid_runtime.stages import table
from consisid_runtime.stages.denoise import denoise
from consisid_runtime.stages.schedule import Schedule

_MAX_CACHED_PORTRAITS = 4


@dataclass(frozen=True, slots=True)
class IdentitySignals:
    """What the stages read from a portrait: face tokens float32 [1, Q, D], image moments float32 [1, n, 2·C, h, w]."""

    tokens: Tensor
    moments: Tensor


@dataclass(frozen=True, slots=True)
class GeneratedVideo:
    """A video: latents float32 [1, F, C, h, w], frames uint8 [F, H, W, 3] RGB, seconds of its stages by name."""

    latents: NDArray[np.float32]
    frames: Frames
    seconds: dict[str, float]


class VideoGenerator:
    """Generates videos with one bundle.

    Args:
        bundle: of any engine.
        checkpoint: from which the bundle was exported, for variants that change the weights.
        options: of every request, before the case's seed and the variant's changes are applied.
    """

    def __init__(self, bundle: Bundle, checkpoint: WeightReader, options: Options) -> None:
        self.bundle, self.pipeline = bundle, Pipeline(bundle)
        self._checkpoint, self._options = checkpoint, options
        self._signals: dict[str, IdentitySignals] = {}
        self._steps: dict[str | int, Engine] = {}

    def generate(self, case: Case, variant: Variant) -> GeneratedVideo:
        """Generate one video. Raises `NoFace` for a portrait in which the bundle finds no face, and `NotFinite`."""
        request = self._plan(case, variant)
        leftover = (
            self._latents(case.donor(), Variant(EXACT), self._plan(case.donor(), Variant(EXACT)))[0]
            if variant.leaked
            else None
        )
        latents, denoise_seconds = self._latents(case, variant, request, leftover)
        begin = time.perf_counter()
        frames = self.pipeline.stages["decode"](latents, request)
        seconds = {"denoise_seconds": denoise_seconds, "decode_seconds": time.perf_counter() - begin}
        return GeneratedVideo(latents.numpy(force=True), frames, seconds)

    def _latents(
        self, case: Case, variant: Variant, request: Plan, leftover: Tensor | None = None
    ) -> tuple[Tensor, float]:
        """The last latents, and the seconds of denoising."""
        own = self.signals(case)
        other = self.signals(case.donor()) if "other" in (variant.tokens, variant.moments) else own
        tokens = other.tokens if variant.tokens == "other" else own.tokens
        moments = other.moments if variant.moments == "other" else own.moments
        text = self._text(case, variant, request)
        if variant.face is not None:
            tokens = variant.face(tokens)
        begin = time.perf_counter()
        latents = self._denoise(text, tokens, moments, request, variant, leftover)
        return latents, time.perf_counter() - begin

    def signals(self, case: Case) -> IdentitySignals:
        """The outputs of the face and encode stages for the case's portrait. Raises `NoFace`, naming the case."""
        if case.name not in self._signals:
            request = self._plan(case, Variant(EXACT))
            values: table.Values = {"image": png(case.portrait())}
            try:
                table.run(self.pipeline.stages, values, request, names=("face", "encode"))
            except NoFace as error:
                raise NoFace(f"{case.name}: {error}") from error
            while len(self._signals) >= _MAX_CACHED_PORTRAITS:
                del self._signals[next(iter(self._signals))]
            self._signals[case.name] = IdentitySignals(values["face_tokens"], values["image_moments"])
        return self._signals[case.name]

    def _plan(self, case: Case, variant: Variant) -> Plan:
        changes: dict[str, Any] = {"seed": case.seed, **variant.options}
        request = self.bundle.plan(replace(self._options, **changes))
        return request if variant.plan is None else variant.plan(request, self.bundle.tiers)

    def _text(self, case: Case, variant: Variant, request: Plan) -> Tensor:
        values: table.Values = {"prompt": case.prompt if variant.prompt else ""}
        table.run(self.pipeline.stages, values, request, names=("text",))
        states: Tensor = values["text_states"]
        return states

    def _denoise(
        self,
        text: Tensor,
        tokens: Tensor,
        moments: Tensor,
        request: Plan,
        variant: Variant,
        leftover: Tensor | None,
    ) -> Tensor:
        conditions, latents, state, schedule = self.pipeline.stages["denoise"].start(text, tokens, moments, request)
        if leftover is not None:
            state = replace(state, x0=leftover)
        if variant.conditions is not None:
            conditions = variant.conditions(conditions)
        if variant.scheduler:
            config = {**self.bundle.config.scheduler, **variant.scheduler}
            schedule = Schedule.from_config(config, request.options.scheduler, request.steps)
        step, modulate = self._step(variant), self.bundle.module("dit_modulate")
        span = range(len(schedule.steps))
        return denoise(step, modulate, conditions, latents, state, request, schedule, span)[0]

    def _step(self, variant: Variant) -> Engine:
        if variant.step is None:
            return self.bundle.module("dit_step")
        if variant.step not in self._steps:
            self._steps[variant.step] = self._pytorch_step(variant.step)
        return self._steps[variant.step]

    def _pytorch_step(self, kind: str | int) -> Engine:
        signature = self.bundle.signature("dit_step")
        if kind in ("fp8", "fp8-saturated"):
            return float8_step(self._checkpoint, signature, 1.0 if kind == "fp8" else SATURATION)
        return rounded_step(self._checkpoint, signature, None if kind == "fp32" else int(kind))
