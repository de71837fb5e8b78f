"""Reports the progress of a TensorRT build and cancels it.

TensorRT swallows exceptions of Python callbacks, Ctrl-C included. They are kept here and raised after it returns.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from consisid_runtime.events import Progress


class Interrupts:
    """While entered, Ctrl-C sets `pending` instead of raising; outside the main thread it does nothing."""

    def __init__(self) -> None:
        self.pending = False
        self._before: Any = None
        self._installed = False

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
            self._installed = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.pending = True


def make_monitor(trt: Any, progress: Progress, interrupts: Interrupts) -> Any:
    """TensorRT's progress monitor. `cancelled`: whether the build was stopped; `failure`: what `progress` raised."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.cancelled = False
            self.failure: BaseException | None = None
            self._totals: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, total: int) -> None:
            self._totals[phase] = total
            self._report(phase, 0)

        def step_complete(self, phase: str, step: int) -> bool:
            self._report(phase, step + 1)
            return not self.cancelled

        def phase_finish(self, phase: str) -> None:
            self._totals.pop(phase, None)

        def _report(self, phase: str, done: int) -> None:
            if self.cancelled:
                return
            try:
                progress(phase, done, self._totals[phase])
            except BaseException as error:
                self.failure = error
            self.cancelled = self.failure is not None or interrupts.pending

    return Monitor()
