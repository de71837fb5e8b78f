"""Imports TensorRT or TensorRT-RTX; this project uses only what is the same in both Python APIs."""

from __future__ import annotations

import functools
import importlib
from collections import deque
from types import ModuleType
from typing import Any

from consisid_runtime.errors import InvalidOption, MissingExtra

LIBRARIES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Distribution, which is also the extra that installs it → the module to import."""

_KEPT_LINES = 40


def load(name: str | None = None) -> tuple[str, ModuleType]:
    """The library and its name.

    Args:
        name: "tensorrt", "tensorrt-rtx", or None for the first that is installed.

    Raises `MissingExtra` naming what to install, `InvalidOption` for another name.
    """
    if name is not None and name not in LIBRARIES:
        raise InvalidOption(f"TensorRT library must be one of {', '.join(LIBRARIES)}, got {name!r}")
    failures = []
    for candidate in LIBRARIES if name is None else (name,):
        try:
            return candidate, importlib.import_module(LIBRARIES[candidate])
        except ImportError as error:  # a binding without its libraries is one too
            failures.append(f"{candidate}: {error}")
    extras = " or ".join(
        f"pip install 'consisid-runtime[{extra}]'" for extra in (LIBRARIES if name is None else (name,))
    )
    raise MissingExtra(f"engine 'tensorrt' needs NVIDIA's library: {extras} ({'; '.join(failures)})")


@functools.cache
def log_of(trt: Any) -> Any:
    """The library's logger; its `lines` keep the latest warnings and errors, which explain a failure.

    One for the whole process: TensorRT ignores a second one while any object made with the first is alive.
    """

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: deque[str] = deque(maxlen=_KEPT_LINES)

        def log(self, severity: Any, message: str) -> None:
            if severity.value <= trt.ILogger.Severity.WARNING.value:
                self.lines.append(f"{severity.name}: {message}")

    return Log()


def reasons(log: Any) -> str:
    """The error lines of a log, or its warnings where there are none, for a message."""
    errors = [line for line in log.lines if not line.startswith("WARNING")]
    return "\n".join(f"  {line}" for line in errors or log.lines) or "  TensorRT gave no reason"
