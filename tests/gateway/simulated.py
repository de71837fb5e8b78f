"""A maker of videos without a server: its steps sleep, and its bytes depend on every step of the request."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from consisid_runtime import Options
from consisid_runtime.errors import CheckpointRefused, NoFace, RequestCancelled
from consisid_runtime.events import Event
from consisid_runtime.video import Video

FACELESS = b"faceless"
"""A portrait without a face."""
_STEPS = 50


class Device:
    """Runs one part at a time, of urgent requests first."""

    def __init__(self) -> None:
        self._free, self._busy, self._urgent = threading.Condition(), False, 0

    @contextmanager
    def turn(self, *, urgent: bool) -> Iterator[None]:
        with self._free:
            self._urgent += urgent
            self._free.wait_for(lambda: not self._busy and (urgent or not self._urgent))
            self._busy = True
        try:
            yield
        finally:
            with self._free:
                self._busy = False
                self._urgent -= urgent
                self._free.notify_all()


class SimulatedMaker:
    """See `worker.maker.Maker`.

    Args:
        step_seconds: of a step of a video of 49 frames; others in proportion.
        part_steps: after which a checkpoint is due.
        log: a file that gets a line for each part that was computed: the request's digest, first and last step.
        fault: called with the request's prompt and each step; what it raises ends the request.
    """

    def __init__(
        self,
        step_seconds: float = 0.0,
        part_steps: int = 5,
        log: Path | None = None,
        fault: Callable[[str, int], None] = lambda prompt, step: None,
    ) -> None:
        self.step_seconds, self.part_steps, self.log, self.fault = step_seconds, part_steps, log, fault
        self.device = Device()
        self.is_ready = True
        self.traces = list[str | None]()

    def make(
        self,
        portrait: bytes,
        prompt: str,
        options: Options,
        *,
        urgent: bool,
        checkpoint: bytes | None,
        trace: str | None = None,
    ) -> SimulatedMaking:
        self.traces.append(trace)
        return SimulatedMaking(self, portrait, prompt, options, urgent, checkpoint)

    def identify(self, portrait: bytes, options: Options) -> Mapping[str, Any]:
        time.sleep(self.step_seconds)
        if portrait.startswith(FACELESS):
            raise NoFace("no face was found in the portrait")
        return {"faces_seen": 1, "box": [0, 0, 8, 8]}

    def ready(self) -> bool:
        return self.is_ready


class SimulatedMaking:
    """One request."""

    def __init__(
        self,
        maker: SimulatedMaker,
        portrait: bytes,
        prompt: str,
        options: Options,
        urgent: bool,
        checkpoint: bytes | None,
    ) -> None:
        self._cancelled = threading.Event()
        self._maker, self._prompt, self._urgent = maker, prompt, urgent
        self._fps, self._steps = options.fps, options.steps or _STEPS
        self._seconds = maker.step_seconds * (options.frames or 49) / 49
        self._digest = digest_of(portrait, prompt, options)
        self._items = self._run(checkpoint)

    def __iter__(self) -> Iterator[Event | Video]:
        return self._items

    def __next__(self) -> Event | Video:
        return next(self._items)

    def cancel(self) -> None:
        self._cancelled.set()

    def _run(self, checkpoint: bytes | None) -> Iterator[Event | Video]:
        step, state = 0, self._digest
        if checkpoint is not None:
            kept = json.loads(checkpoint)
            if kept["request"] != self._digest:
                raise CheckpointRefused("the checkpoint is of another request")
            step, state = kept["step"], kept["state"]
        yield Event("face", 0, 1)
        yield Event("denoise", step, self._steps)
        while step < self._steps:
            stop = min(step + self._maker.part_steps, self._steps)
            with self._maker.device.turn(urgent=self._urgent):
                for i in range(step, stop):
                    self._maker.fault(self._prompt, i)
                    if self._cancelled.wait(self._seconds):
                        raise RequestCancelled("cancelled")
                    state = hashlib.sha256(f"{state} {i}".encode()).hexdigest()
            self._note(step, stop)
            step = stop
            left = (self._steps - step) * self._seconds
            kept = json.dumps({"request": self._digest, "step": step, "state": state}).encode()
            yield Event("denoise", step, self._steps, seconds_left=left, checkpoint=kept if left else None)
        yield Event("decode", 0, 1)
        yield video_of(state, self._fps)

    def _note(self, first: int, last: int) -> None:
        if self._maker.log is not None:
            file = os.open(self._maker.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(file, f"{self._digest} {first} {last}\n".encode())
            os.close(file)


def digest_of(portrait: bytes, prompt: str, options: Options) -> str:
    request = json.dumps([prompt, options.to_mapping()], sort_keys=True)
    return hashlib.sha256(portrait + request.encode()).hexdigest()


def expected(portrait: bytes, prompt: str, options: Options) -> Video:
    """The video of an undisturbed request."""
    maker = SimulatedMaker()
    *_, video = maker.make(portrait, prompt, options, urgent=False, checkpoint=None)
    assert isinstance(video, Video)
    return video


def video_of(state: str, fps: int) -> Video:
    """Two small frames."""
    colours = np.frombuffer(bytes.fromhex(state), np.uint8)[:24].reshape(2, 4, 1, 3)
    frames = np.ascontiguousarray(np.broadcast_to(colours.repeat(8, axis=1), (2, 32, 32, 3)))
    return Video(frames=frames, fps=fps, info={"seed": 0, "state": state})
