"""Serves a bundle: the committed model repository on NVIDIA's Triton server, with `TritonServer`'s safe defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from consisid_runtime.bundle import Bundle
from consisid_runtime.engines import check_device
from consisid_runtime.serve.tritonserver import TritonServer
from consisid_runtime.wire import BUNDLE_VARIABLE, DEVICE_VARIABLE, VERIFIED_VARIABLE


def model_repository() -> Path:
    """The ensemble and its composing models: inside an installed package, beside it in a source tree."""
    installed = Path(__file__).parents[1] / "model_repository"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "model_repository"


class Server(TritonServer):
    """A bundle, served. `with Server("bundle") as server: Client(server.grpc_url)…`

    Args:
        bundle: the bundle's folder.
        device: of every model, one of `engines.DEVICES`.
        settings: `host`, `grpc_port`, `http_port`, `metrics_port`, `log`, `ready_timeout`, `threads`, `private` of
            `TritonServer`.
    """

    def __init__(self, bundle: str | Path, *, device: str = "auto", **settings: Any) -> None:
        check_device(device)
        self._bundle = Path(bundle)
        super().__init__(
            model_repository(),
            environment={DEVICE_VARIABLE: device},
            folders={BUNDLE_VARIABLE: self._bundle},
            **settings,
        )

    def start(self) -> Self:
        """Check address and ports, then every file of the bundle, then start; the models do not hash the files again.

        A later start leaves the files to the models, which hash those that were touched meanwhile. Raises what
        `Bundle.open`, `Bundle.verify` and `TritonServer.start` do.
        """
        self.choose_address()
        if VERIFIED_VARIABLE not in self._environment:
            bundle = Bundle.open(self._bundle)
            bundle.verify()
            self.plan = bundle.plan
            self._environment[VERIFIED_VARIABLE] = bundle.handover()
        return super().start()
