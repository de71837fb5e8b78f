"""From noise to latents: the loop, and the stage around it.

`denoise` is a pure function of its arguments, so that a run may be cut anywhere and continued, here or elsewhere.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from torch import Tensor

from consisid_runtime.engines import Engine, place_of
from consisid_runtime.engines.transfers import Lead, send
from consisid_runtime.errors import InvalidOption
from consisid_runtime.events import Progress, silent
from consisid_runtime.models.positions import added_positions, rope
from consisid_runtime.plan import Plan
from consisid_runtime.signatures import MODULATION_BLOCK
from consisid_runtime.stages.schedule import Schedule

if TYPE_CHECKING:
    from consisid_runtime.bundle import Modules


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a request holds fixed over its steps; names and shapes as in `DIT_STEP`."""

    text_tokens: Tensor
    image_tokens: Tensor
    face_keys: Tensor
    face_values: Tensor
    rope_cos: Tensor
    rope_sin: Tensor


@dataclass(frozen=True, slots=True)
class SolverState:
    """What passes from one step to the next beside the latents.

    Attributes:
        x0: the clean latents the last step implied, as the latents; None before the first.
        generator: state of the CPU generator, uint8.
    """

    x0: Tensor | None
    generator: Tensor


@dataclass(frozen=True, slots=True)
class Range:
    """Some of a request's steps, and what the range before them left.

    Attributes:
        span: consecutive steps, at least one.
        latents, state: as `denoise` returned them; None where the span begins at 0.
    """

    span: range
    latents: Tensor | None = None
    state: SolverState | None = None


_Start = tuple[Conditions, Tensor, SolverState, Schedule]

_NUMBERS = 624
"""Of a Mersenne Twister, drawn before it makes new ones."""
_STARTS_KEPT = 2
"""Of requests that are run in ranges: an urgent one, and the one that waits for it."""


def denoise(
    step: Engine,
    modulate: Engine,
    conditions: Conditions,
    latents: Tensor,
    state: SolverState,
    plan: Plan,
    schedule: Schedule,
    span: range,
    progress: Progress = silent,
) -> tuple[Tensor, SolverState]:
    """Take the steps in `span`: those that the plan computes, by the network; the others keep the state's x0.

    A GPU never waits for the host between two steps: a step's noise is drawn while the device is at its network.

    Args:
        step, modulate: engines of `dit_step` and `dit_modulate`.
        latents: float32 [1, F, C, h, w].
        span: consecutive steps, within `range(len(schedule.steps))`.
        progress: called with ("denoise", steps done, steps in all) after each; on a GPU when the device is at the last
            of these steps.

    Returns:
        Latents and state after the last step of `span`, which is done: what the next range starts from.
    """
    total = len(schedule.steps)
    if span.step != 1 or not 0 <= span.start <= span.stop <= total:
        raise ValueError(f"span must count up by one within range(0, {total}), got {span}")
    fixed = {name: getattr(conditions, name) for name in Conditions.__slots__}
    generator = torch.Generator()
    generator.set_state(state.generator)
    unguided = {**fixed, "text_tokens": conditions.text_tokens[-1:]}
    x0, block, tables = state.x0, None, {}
    timesteps, lead = send(schedule.timesteps, place_of(modulate)), Lead(latents.device)
    for i in span:
        velocity = None
        if plan.computed[i]:
            number, row = divmod(i, MODULATION_BLOCK)
            if number != block:
                block, first = number, i - row
                tables = modulate({"timesteps": timesteps[first : first + MODULATION_BLOCK]})
            modulations = {f"{name}_modulation": tables[f"{name}_modulations"][row] for name in ("block", "final")}
            guided = i < plan.guided_steps
            velocity = step({"latents": latents, **modulations, **(fixed if guided else unguided)})["velocity"]
            if guided:
                negative, positive = velocity.chunk(2)
                velocity = negative + guidance(plan, schedule.steps[i].timestep) * (positive - negative)
        draw = None
        for _ in range(schedule.steps[i].draws):
            draw = torch.randn(latents.shape, generator=generator)
        draw = None if draw is None else send(draw, latents.device)
        latents, x0 = schedule.advance(i, velocity, latents, x0, draw)
        lead.part()
        progress("denoise", i + 1, total)
    lead.finish()
    return latents, SolverState(x0, generator.get_state())


def guidance(plan: Plan, timestep: int) -> float:
    """The guidance scale at a timestep: constant, or the reference's `use_dynamic_cfg`.

    The reference's ramp compares the timestep, not the step's index, with the number of steps. It is kept as it is.
    """
    scale, steps = plan.guidance, plan.steps
    if not plan.options.dynamic_guidance:
        return scale
    return 1 + scale * ((1 - math.cos(math.pi * ((steps - timestep) / steps) ** 5.0)) / 2)


class Denoiser:
    """The stage between encoding and decoding. Draws everything random in a request, from one CPU generator."""

    def __init__(self, bundle: Modules) -> None:
        self._config = bundle.config.transformer
        self._scheduler = bundle.config.scheduler
        self._scaling = bundle.config.vae.scaling_factor
        self._prepare = bundle.module("dit_prepare")
        self._modulate = bundle.module("dit_modulate")
        self._step = bundle.module("dit_step")
        self._starts: OrderedDict[bytes, _Start] = OrderedDict()
        self._learned: Tensor | None = None
        if self._config.use_learned_positional_embeddings:
            learned = load_file(bundle.file("positions.safetensors"))["pos_embedding"]
            # 55 million values of ConsisID-preview: converted and sent once, not for each request.
            self._learned = learned.float().to(place_of(self._prepare))

    @property
    def choices(self) -> Mapping[str, str]:
        """What the step's engine decided on this device, for `info`; empty where it has nothing to decide."""
        found: Mapping[str, str] = getattr(self._step, "choices", {})
        return found

    def __call__(
        self,
        text_states: Tensor,
        face_tokens: Tensor,
        image_moments: Tensor,
        plan: Plan,
        progress: Progress = silent,
    ) -> Tensor:
        """Latents float32 [1, F, C, h, w] of a whole run.

        Args:
            text_states: [B, L, D], negative prompt first; B = 2 where `plan.guided`, else 1.
            face_tokens: [1, Q, D].
            image_moments: [1, n, 2·C, h, w], mean and log variance of the portrait and, where n = 2, the keypoints.
            progress: as in `denoise`.

        Raises:
            InvalidOption: more steps than trained with, or text states made for another guidance.
        """
        return self.take(None, text_states, face_tokens, image_moments, plan, progress)[0]

    def take(
        self,
        part: Range | None,
        text_states: Tensor,
        face_tokens: Tensor,
        image_moments: Tensor,
        plan: Plan,
        progress: Progress = silent,
    ) -> tuple[Tensor, SolverState]:
        """Latents and state after a part of a run; None takes all of it.

        The parts of a run give the bits of the whole. What `start` returns is kept from one to the next, by the content
        of the other arguments. Raises as `__call__`, and `InvalidOption` for a part that is none of this run.
        """
        inputs = (text_states, face_tokens, image_moments)
        if part is None:
            conditions, latents, state, schedule = self.start(*inputs, plan)
            return self.run(conditions, latents, state, plan, schedule, range(len(schedule.steps)), progress)
        key = _digest(inputs, plan)
        start = self._starts.pop(key, None) or self.start(*inputs, plan)
        conditions, latents, state, schedule = start
        span = part.span
        if not 0 <= span.start < span.stop <= len(schedule.steps):
            raise InvalidOption(f"span must lie in 0 to {len(schedule.steps)}, got {span.start} to {span.stop}")
        if span.start:
            latents, state = _resumed(part, latents)
        if span.stop < len(schedule.steps):
            self._starts[key] = start
            while len(self._starts) > _STARTS_KEPT:
                self._starts.popitem(last=False)
        return self.run(conditions, latents, state, plan, schedule, span, progress)

    def start(self, text_states: Tensor, face_tokens: Tensor, image_moments: Tensor, plan: Plan) -> _Start:
        """Everything `run` needs for the first range of a request."""
        options = plan.options
        if text_states.shape[0] != 1 + plan.guided:
            raise InvalidOption(
                f"guidance {plan.guidance:g} needs text states of {1 + plan.guided} prompts, got "
                f"{text_states.shape[0]}; give text and denoise the same options"
            )
        schedule = Schedule.from_config(self._scheduler, options.scheduler, plan.steps)
        generator = torch.Generator().manual_seed(options.seed)
        frames, rows, columns = plan.latent_frames, plan.rows, plan.columns
        # All draws are made also where a path is switched off, so that an ablation changes nothing else.
        image = _sample(image_moments, generator) * self._scaling
        noise = torch.randn((1, frames, *image.shape[2:]), generator=generator)
        image_latents = torch.zeros_like(noise)
        if options.global_identity:
            image_latents = torch.cat((image, image_latents[:, image.shape[1] :]), dim=1)
        text_positions, video_positions = added_positions(self._config, frames, rows, columns, self._learned)
        prepared = self._prepare(
            {
                "text_states": text_states,
                "face_tokens": face_tokens,
                "image_latents": image_latents,
                "text_positions": text_positions,
                "video_positions": video_positions,
            }
        )
        prepared["face_values"] = prepared["face_values"] * (options.face_scale if options.local_identity else 0.0)
        device = prepared["image_tokens"].device
        cos, sin = (send(tensor, device) for tensor in rope(self._config, frames, rows, columns))
        conditions = Conditions(**prepared, rope_cos=cos, rope_sin=sin)
        return conditions, send(noise, device), SolverState(None, generator.get_state()), schedule

    def run(
        self,
        conditions: Conditions,
        latents: Tensor,
        state: SolverState,
        plan: Plan,
        schedule: Schedule,
        span: range,
        progress: Progress = silent,
    ) -> tuple[Tensor, SolverState]:
        """`denoise` on this bundle's engines."""
        return denoise(self._step, self._modulate, conditions, latents, state, plan, schedule, span, progress)


def _digest(inputs: tuple[Tensor, ...], plan: Plan) -> bytes:
    found = hashlib.sha256(repr(plan).encode())
    for tensor in inputs:
        found.update(repr(tuple(tensor.shape)).encode())
        found.update(tensor.float().numpy(force=True).tobytes())
    return found.digest()


def _resumed(part: Range, start: Tensor) -> tuple[Tensor, SolverState]:
    """Latents and state of a part, on the device of the run's first latents. Raises `InvalidOption`."""
    latents, state = part.latents, part.state
    if latents is None or state is None or state.x0 is None:
        raise InvalidOption(f"steps from {part.span.start} need latents, x0 and generator of the step before")
    if not latents.shape == state.x0.shape == start.shape:
        raise InvalidOption(f"latents and x0 must be {list(start.shape)}, got {list(latents.shape)}")
    try:
        torch.Generator().set_state(state.generator)
    except (RuntimeError, TypeError) as error:
        raise InvalidOption(f"generator is no state of a generator: {str(error).splitlines()[0][:200]}") from None
    if not _reads_its_own(state.generator):
        raise InvalidOption("generator is no state of a generator: it would read beyond its numbers")
    device = start.device
    return send(latents, device), SolverState(send(state.x0, device), state.generator)


def _reads_its_own(state: Tensor) -> bool:
    """Whether a generator's state stays within its 624 numbers, which PyTorch does not check: noise was other memory.

    Its first fields are: seed (8 bytes), numbers left and a flag (4 each), place of the next number (8).
    """
    left, place = struct.unpack_from("<8xi4xQ", state.numpy().tobytes())
    return bool(left - 1 + place <= _NUMBERS)


def _sample(moments: Tensor, generator: torch.Generator) -> Tensor:
    """Draw each image's latents, one after the other: moments [1, n, 2·C, h, w] → [1, n, C, h, w]."""
    mean, log_variance = moments.float().cpu().chunk(2, dim=2)
    deviation = torch.exp(0.5 * log_variance.clamp(-30.0, 20.0))
    draws = [torch.randn((1, 1, *mean.shape[2:]), generator=generator) for _ in range(mean.shape[1])]
    return mean + deviation * torch.cat(draws, dim=1)
