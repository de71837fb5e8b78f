"""ConsisID, identity-preserving text-to-video: run a bundle in this process (`Pipeline`) or ask a server (`Client`).

Names are imported on first use: the client alone needs neither torch nor onnxruntime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from consisid_runtime.client.async_client import AsyncClient
    from consisid_runtime.client.client import Client
    from consisid_runtime.options import Options
    from consisid_runtime.pipeline import Pipeline
    from consisid_runtime.video import Video

    __version__: str

__all__ = ["AsyncClient", "Client", "Options", "Pipeline", "Video", "__version__"]

_HOMES = {
    "AsyncClient": "client.async_client",
    "Client": "client.client",
    "Options": "options",
    "Pipeline": "pipeline",
    "Video": "video",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("consisid-runtime")
        except PackageNotFoundError:  # run from a source tree
            return "0"
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
