"""An operator's own functions, named `module:function`: consent before a video is made, a watermark in its pixels.

They are found when the process starts that calls them, so that a missing one is no surprise of the first request.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from consisid_runtime.errors import ConsentRefused, HookFailed, InvalidOption
from consisid_runtime.options import Options
from consisid_runtime.wire import WATERMARK_VARIABLE

if TYPE_CHECKING:
    from consisid_runtime.mp4 import Frames

ConsentHook = Callable[[bytes, str, Options, str], str | None]
"""From an image file's bytes, the prompt, the options and the caller's id to why it is refused, or to None."""


def load_hook(name: str) -> Callable[..., Any]:
    """The function of `module:function`. Raises `InvalidOption` where there is none."""
    module, _, function = name.partition(":")
    if not module or not function:
        raise InvalidOption(f"a hook is named module:function, got {name[:200]!r}")
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:  # whatever the module's own code raises
        raise InvalidOption(f"the hook {name!r} cannot be loaded: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise InvalidOption(f"the hook {name!r} is no function")
    return found  # type: ignore[no-any-return]


def check_consent(hook: ConsentHook, image: bytes, prompt: str, options: Options, caller: str) -> None:
    """Ask the hook. Raises `ConsentRefused` with its text, `HookFailed` for an answer that is neither text nor None."""
    refusal = hook(image, prompt, options, caller)
    if refusal is not None and not isinstance(refusal, str):
        raise HookFailed(f"the consent hook returned {type(refusal).__name__}, not a text or None")
    if refusal is not None:
        raise ConsentRefused(refusal or "the operator refused the request")


class Watermark:
    """A function from frames, uint8 [n, height, width, 3] RGB, to frames of the same shape and type.

    It gets an array of its own, and must return the same for the same frames: no chance, no time.

    Args:
        name: `module:function`. The module, or the package around it, has a `__version__`.

    Raises `InvalidOption` where there is no such function, or no version.

    Attributes:
        info: its name and version, as the video's `info` and metadata tell them.
    """

    def __init__(self, name: str) -> None:
        self._mark = load_hook(name)
        module = name.partition(":")[0]
        modules = [sys.modules[found] for found in (module, module.partition(".")[0])]
        version = next((found.__version__ for found in modules if hasattr(found, "__version__")), None)
        if version is None:
            raise InvalidOption(f"the watermark {name!r} has no version; give its module a __version__")
        self.info = {"name": name, "version": str(version)}

    @classmethod
    def of_environment(cls) -> Watermark | None:
        """That of `WATERMARK_VARIABLE`; None where it is not set."""
        name = os.environ.get(WATERMARK_VARIABLE)
        return cls(name) if name else None

    def __call__(self, frames: Frames) -> Frames:
        """Raises `HookFailed` for other frames than there were, and what the function raises."""
        shape = frames.shape
        marked = self._mark(frames)
        if not isinstance(marked, np.ndarray) or marked.shape != shape or marked.dtype != np.uint8:
            found = f"{marked.dtype} {list(marked.shape)}" if isinstance(marked, np.ndarray) else type(marked).__name__
            raise HookFailed(f"the watermark {self.info['name']} returned {found}, not uint8 {list(shape)}")
        return marked
