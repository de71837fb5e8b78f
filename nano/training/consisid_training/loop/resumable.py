"""A training loop that can be stopped and resumed at any step."""

from __future__ import annotations

import fcntl
import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from consisid_runtime.files.atomic import replacing_file
from consisid_training.loop.muon import Muon

SAVE_SECONDS = 120.0
EVERY = 20  # steps per line of the log


class TrainingRun:
    """The training of one network: its state, its schedule and its log.

    All random numbers of step n come from `rng(n)`, so that a resumed run is identical to an uninterrupted one.

    Attributes:
        step: number of finished steps. stop_requested: a signal arrived. stopping: ends the loop after this step.
        remeasured: whether `batch_norm.remeasure_statistics` has run.

    Args:
        folder: holds `state.pt` and `log.jsonl`.
        steps: total; the learning rate warms up over 100 and decreases linearly to 0 over the last share `decay`.
        rate: learning rate of Muon, for matrices and kernels. adamw_rate: that of AdamW, for all else.
        adamw: substrings of the names of matrices that AdamW optimises (embeddings, outputs).
        average: decay of the exponential moving average of the weights, 0 for none.
        writes: whether this process saves and logs; only one process a folder may.
        device: of the network and its state.
        data_parallel: several processes take the same steps. A signal then only sets `stop_requested`; the processes
            agree on a step and set `stopping`.
    """

    def __init__(
        self, folder: Path, network: nn.Module, *, steps: int, rate: float, adamw_rate: float, seed: int,
        adamw: tuple[str, ...] = (), decay: float = 0.45, average: float = 0.0, writes: bool = True,
        device: torch.device | str = "cpu", data_parallel: bool = False,
    ) -> None:  # fmt: skip
        self.folder, self.network, self.steps, self.seed = folder, network.to(device), steps, seed
        self._device = device
        self._decay, self._average, self._writes = decay, average, writes
        self._optimizers = _optimizers(network, rate, adamw_rate, adamw)
        self._rates = [group["lr"] for optimizer in self._optimizers for group in optimizer.param_groups]
        self.averaged = {name: t.detach().clone() for name, t in network.state_dict().items()} if average else {}
        self.step = 0
        self._seconds = 0.0
        self.stop_requested = self.stopping = self.remeasured = self._broken = False
        self._data_parallel = data_parallel
        self._measured: dict[str, list[float]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "state.pt").exists():
            self._load()

    def rng(self, step: int, stream: int = 0) -> np.random.Generator:
        """Return the generator of a step; `stream` distinguishes independent ones."""
        return np.random.default_rng([self.seed, stream, step])

    def loop(self) -> Iterator[int]:
        """Yield the remaining steps, saving periodically and at the end.

        Raises `SystemExit` after SIGTERM or SIGINT, and `RuntimeError` if another process is training in the folder.
        """
        with _locked(self.folder / "lock") if self._writes else nullcontext():
            yield from self._steps()
        if self.stop_requested and self.step < self.steps:
            raise SystemExit(f"stopped at step {self.step} of {self.steps}; the same command resumes")

    def _steps(self) -> Iterator[int]:
        previous = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        began = saved = time.monotonic()
        try:
            while self.step < self.steps and not self.stopping:
                torch.manual_seed(self.seed * 1_000_003 + self.step)
                yield self.step
                self.step += 1
                now = time.monotonic()
                if now - saved > SAVE_SECONDS:
                    self._seconds += now - began
                    began = saved = now
                    self.save()
        finally:
            self._seconds += time.monotonic() - began
            if not self._broken:
                self.save()
            for number, handler in previous.items():
                signal.signal(number, handler)

    def update(self, loss: Tensor, clip: float = 1.0, **measured: float) -> None:
        """Take one step along the gradient of `loss`; logs `loss` and `measured`."""
        loss.backward()  # type: ignore[no-untyped-call]
        self.apply(clip, loss=loss.item(), **measured)

    def apply(self, clip: float = 1.0, **measured: float) -> None:
        """Take one step with the gradients of the parameters, clipped to norm `clip`; logs `measured`.

        Raises `FloatingPointError` if the gradient or a measured value is not finite; nothing is saved then.
        """
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), clip)
        for name, value in {"gradient": norm.item(), **measured}.items():
            if not math.isfinite(value):
                self._broken = True
                raise FloatingPointError(f"step {self.step}: {name} is {value}")
        factor = self._factor()
        rates = iter(self._rates)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = next(rates) * factor
            _share_gradients(optimizer)
            optimizer.step()
        self.network.zero_grad(set_to_none=True)
        if self._average:
            keep = min(self._average, (self.step + 1) / (self.step + 10))
            with torch.no_grad():
                for name, value in self.network.state_dict().items():
                    if value.is_floating_point():
                        self.averaged[name].lerp_(value, 1 - keep)
        self._log(measured)

    def _factor(self) -> float:
        left = (self.steps - self.step) / max(1.0, self._decay * self.steps)
        return min(1.0, (self.step + 1) / 100, left)

    def _log(self, measured: dict[str, float]) -> None:
        for name, value in measured.items():
            self._measured.setdefault(name, []).append(value)
        if (self.step + 1) % EVERY == 0 and self._writes:
            means = {name: round(sum(values) / len(values), 5) for name, values in self._measured.items()}
            with (self.folder / "log.jsonl").open("a") as log:
                log.write(json.dumps({"step": self.step + 1, **means, "at": round(time.time())}) + "\n")
            self._measured = {}

    def save(self) -> None:
        if not self._writes:
            return
        state: dict[str, Any] = {
            "network": self.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "averaged": self.averaged,
            "step": self.step,
            "remeasured": self.remeasured,
            "seconds": self._seconds,
        }
        with replacing_file(self.folder / "state.pt") as fresh:
            torch.save(state, fresh)

    def _load(self) -> None:
        state = torch.load(self.folder / "state.pt", weights_only=True, map_location=self._device)
        self.network.load_state_dict(state["network"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.averaged, self.step, self._seconds = state["averaged"], state["step"], state["seconds"]
        self.remeasured = state.get("remeasured", False)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stop_requested = True
        self.stopping = self.stopping or not self._data_parallel


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(f"another process is training in {path.parent}; wait for it or stop it") from None
        yield


def weights(folder: Path) -> dict[str, Tensor]:
    """Return the weights of a run, averaged ones if it averages."""
    state = torch.load(folder / "state.pt", weights_only=True, map_location="cpu")
    found: dict[str, Tensor] = state["averaged"] or state["network"]
    return found


def _optimizers(network: nn.Module, rate: float, adamw_rate: float, adamw: tuple[str, ...]) -> list[Optimizer]:
    """Return AdamW, and Muon for matrices and for kernels reshaped to [outputs, all else]."""
    named = dict(network.named_parameters())
    matrices = [
        (name, p) for name, p in named.items() if p.ndim >= 2 and min(p.shape[0], p[0].numel()) > 3
        and not any(part in name for part in adamw)
    ]  # fmt: skip
    taken = {name for name, _ in matrices}
    flat = []
    for _, parameter in matrices:
        view = nn.Parameter(parameter.detach().view(parameter.shape[0], -1))
        view.original = parameter  # type: ignore[attr-defined]
        flat.append(view)
    rest = [p for name, p in named.items() if name not in taken]
    optimizers: list[Optimizer] = [AdamW(rest, lr=adamw_rate, weight_decay=0.0, betas=(0.9, 0.98))]
    if flat:
        optimizers.append(Muon(flat, lr=rate))
    return optimizers


def _share_gradients(optimizer: Optimizer) -> None:
    """Assign gradients to the matrices that share the memory of the trained parameters."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            original = getattr(parameter, "original", None)
            if original is not None:
                parameter.grad = None if original.grad is None else original.grad.view(parameter.shape)
