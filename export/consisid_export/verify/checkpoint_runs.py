"""Denoising runs of a checkpoint before its bundle exists: they calibrate fp8 and measure the error of a whole run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.onnx.precision import FLOAT32_MODULES
from consisid_runtime.bundle import Modules
from consisid_runtime.engines import Engine
from consisid_runtime.engines.torch import TorchEngine
from consisid_runtime.errors import NotFinite
from consisid_runtime.events import Progress, silent
from consisid_runtime.models import networks
from consisid_runtime.options import Options
from consisid_runtime.plan import Plan, plan
from consisid_runtime.signatures import Signature
from consisid_runtime.stages import table
from consisid_runtime.stages.denoise import Denoiser

STEPS = 20

Load = Callable[[str], Engine]


@dataclass(frozen=True, slots=True)
class Request:
    """What `Denoiser` takes."""

    text_states: Tensor
    face_tokens: Tensor
    image_moments: Tensor
    plan: Plan


class CheckpointRuns:
    """One checkpoint, run by PyTorch in float32, or in bfloat16 where that is on a GPU.

    Args:
        folder: holds the files that `copied_files.copy_files` writes.
    """

    def __init__(self, checkpoint: Checkpoint, folder: Path, signatures: Mapping[str, Signature]) -> None:
        self._checkpoint, self._folder, self._signatures = checkpoint, folder, signatures
        self._example = checkpoint.example()
        self._geometry = checkpoint.config.geometry
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self._dtype = torch.float32 if self.device == "cpu" else torch.bfloat16

    def largest_inputs(
        self, layers: Callable[[nn.Module], Mapping[str, nn.Module]], progress: Progress
    ) -> dict[str, float]:
        """Largest absolute value that enters each of a step's `layers` over the example's calibration runs.

        Raises what the stages raise, `NoFace` for one, and `NotFinite` naming the first layer that gets such values.
        """
        requests = self._requests(
            (prompt, Options(seed=seed, steps=STEPS)) for prompt, seed in self._example.calibration
        )
        step = self._network("dit_step")
        found: dict[str, float] = {}
        for name, layer in layers(step).items():
            layer.register_forward_pre_hook(_Largest(name, found))
        engine = self.engine("dit_step", step)
        denoise = self._denoiser(lambda name: engine if name == "dit_step" else self._original(name))
        for number, request in enumerate(requests, start=1):
            phase = f"calibration {number} of {len(requests)}"
            _run(denoise, request, lambda _, done, total, phase=phase: progress(phase, done, total))  # type: ignore[misc]
        return found

    def step_samples(self) -> list[dict[str, Tensor]]:
        """Inputs of `dit_step` as they occur: early, half-way and late, with guidance; and in a shorter video without.

        Raises what the stages raise.
        """
        prompt, seed = self._example.held_out
        shorter = 2 * self._geometry.temporal + 1
        full, short = (
            Options(seed=seed, steps=STEPS),
            Options(seed=seed, steps=STEPS, guidance=1.0, frames=shorter),
        )
        requests = self._requests([(prompt, full), (prompt, short)])
        samples: list[dict[str, Tensor]] = []
        step = _Recording(self._original("dit_step"))
        denoise = self._denoiser(lambda name: step if name == "dit_step" else self._original(name))
        for request in requests:
            _run(denoise, request)
            samples += [step.inputs[number] for number in (0, STEPS // 2, STEPS - 1)]
            step.inputs.clear()
        return samples

    def held_out(self, *loads: Load) -> list[Tensor]:
        """Latents at the end of a run that calibration has not seen, with each one's engines in the loop.

        Raises what the stages raise.
        """
        prompt, seed = self._example.held_out
        (request,) = self._requests([(prompt, Options(seed=seed, steps=STEPS))])
        return [_run(self._denoiser(load), request) for load in loads]

    def changes(self, steps: int, progress: Progress) -> tuple[tuple[int, ...], list[list[float]]]:
        """Timesteps of the calibration runs with "ddim", and how far the clean latents move between them in each run.

        These are relative L2 distances, one fewer than timesteps. Raises what the stages raise.
        """
        requests = self._requests(
            (prompt, Options(seed=seed, steps=steps, scheduler="ddim")) for prompt, seed in self._example.calibration
        )
        denoise = self._denoiser(self._original)
        moved, timesteps = [], ()
        for number, request in enumerate(requests, start=1):
            start = denoise.start(request.text_states, request.face_tokens, request.image_moments, request.plan)
            conditions, latents, state, schedule = start
            timesteps, distances, before = tuple(schedule.timesteps.tolist()), [], None
            for step in range(steps):
                span = range(step, step + 1)
                latents, state = denoise.run(conditions, latents, state, request.plan, schedule, span)
                assert state.x0 is not None
                if before is not None:
                    distances.append(float((state.x0 - before).norm() / state.x0.norm()))
                before = state.x0
                progress(f"run {number} of {len(requests)}", step + 1, steps)
            moved.append(distances)
        return timesteps, moved

    def engine(self, name: str, network: nn.Module) -> Engine:
        """Runs `network`, one module of the checkpoint."""
        return TorchEngine(network, self._signatures[name], device=self.device)

    def _original(self, name: str) -> Engine:
        return self.engine(name, self._network(name))

    def _network(self, name: str) -> nn.Module:
        dtype = torch.float32 if name in FLOAT32_MODULES else self._dtype
        return networks.load(name, self._checkpoint, dtype)

    def _requests(self, wanted: Iterable[tuple[str, Options]]) -> list[Request]:
        """The stages' networks are freed when this returns: they need not fit into memory beside the transformer."""
        loaded = table.load(self._view(self._original), ("face", "text", "encode"))
        made = []
        for prompt, options in wanted:
            resolved = plan(options, self._geometry)
            values: table.Values = {"image": self._example.portrait, "prompt": prompt}
            table.run(loaded, values, resolved)
            made.append(Request(values["text_states"], values["face_tokens"], values["image_moments"], resolved))
        return made

    def _denoiser(self, load: Load) -> Denoiser:
        return Denoiser(self._view(load))

    def _view(self, load: Load) -> Modules:
        return _View(self._checkpoint, self._folder, self._signatures, load, self.device)


class _View:
    """The checkpoint as the stages see a bundle."""

    def __init__(
        self, checkpoint: Checkpoint, folder: Path, signatures: Mapping[str, Signature], load: Load, device: str
    ) -> None:
        self.config, self.module, self.device = checkpoint.config, load, device
        self.world = checkpoint.example().world
        self._folder, self._signatures = folder, signatures

    def file(self, name: str) -> Path:
        return self._folder / name

    def signature(self, module: str) -> Signature:
        return self._signatures[module]


class _Largest:
    """Keeps the largest absolute value of a layer's inputs."""

    def __init__(self, name: str, found: dict[str, float]) -> None:
        self._name, self._found = name, found

    def __call__(self, layer: nn.Module, arguments: tuple[Tensor]) -> None:
        largest = float(arguments[0].abs().amax())
        if not math.isfinite(largest):
            raise NotFinite(f"what enters {self._name} is not finite")
        self._found[self._name] = max(self._found.get(self._name, 0.0), largest)


class _Recording:
    """An engine that keeps its inputs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.inputs: list[dict[str, Tensor]] = []

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self.inputs.append({name: tensor.cpu() for name, tensor in inputs.items()})
        return self._engine(inputs)


def _run(denoise: Denoiser, request: Request, progress: Progress = silent) -> Tensor:
    latents = denoise(request.text_states, request.face_tokens, request.image_moments, request.plan, progress)
    return latents.cpu()
