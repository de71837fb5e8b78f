"""Serves a bundle: its models on NVIDIA's Triton server, with `TritonServer`'s safe defaults."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from consisid_runtime.bundle import Bundle
from consisid_runtime.engines import check_device
from consisid_runtime.errors import BundleError, Busy, ServerDied, ServerError
from consisid_runtime.memory.decide import Setting
from consisid_runtime.memory.peak import device_bytes
from consisid_runtime.plan import Plan
from consisid_runtime.serve.edition import Edition
from consisid_runtime.serve.layout import AUTO, asks_device, check, choose
from consisid_runtime.serve.readiness.trial import try_out
from consisid_runtime.serve.repository import ENSEMBLE_LAYOUT, repository
from consisid_runtime.serve.tritonserver import TritonServer
from consisid_runtime.stages.face.faces import KEPT, SECONDS
from consisid_runtime.wire import (
    BUNDLE_VARIABLE,
    DEVICE_VARIABLE,
    FACES_KEPT_VARIABLE,
    FACES_SECONDS_VARIABLE,
    MEMORY_VARIABLE,
    VERIFIED_VARIABLE,
    WATERMARK_VARIABLE,
)

_ENDING = 15.0
"""Seconds until a server, one of whose processes has ended, has ended itself."""


def model_repository() -> Path:
    """The ensemble and its composing models: inside an installed package, beside it in a source tree."""
    installed = Path(__file__).parents[1] / "model_repository"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "model_repository"


class Server(TritonServer):
    """A bundle, served. `with Server("bundle") as server: Client(server.grpc_url)…`

    Args:
        bundle: the bundle's folder.
        device: of every model, one of `engines.DEVICES`.
        layout: one of `repository.LAYOUTS`; "auto" for the ensemble where it fits on the device.
        memory: as for `Bundle.open`; for one process, hence for layout "single".
        watermark: the function that marks every video, `module:function` of a package that is installed for the models;
            None takes that of `WATERMARK_VARIABLE`.
        faces_kept, faces_seconds: of how many photographs what was read is remembered, and for how long.
        settings: `host`, `grpc_port`, `http_port`, `metrics_port`, `log`, `ready_timeout`, `threads`, `private` of
            `TritonServer`.
    """

    def __init__(
        self,
        bundle: str | Path,
        *,
        device: str = "auto",
        layout: str = AUTO,
        memory: Setting | None = None,
        watermark: str | None = None,
        faces_kept: int = KEPT,
        faces_seconds: float = SECONDS,
        **settings: Any,
    ) -> None:
        check_device(device)
        check(layout, memory)
        self._bundle = Path(bundle).absolute()
        self._device, self._layout, self._memory = device, layout, memory
        chosen = {
            MEMORY_VARIABLE: None if memory is None else str(memory),
            WATERMARK_VARIABLE: watermark,
            DEVICE_VARIABLE: device,
            FACES_KEPT_VARIABLE: str(faces_kept),
            FACES_SECONDS_VARIABLE: str(faces_seconds),
        }
        super().__init__(
            model_repository(),
            environment={name: value for name, value in chosen.items() if value is not None},
            **settings,
        )

    def prepare(self) -> None:
        """Check address and ports, then every file of the bundle: before the first start, and where it is not there any
        more, when what is at its path now takes its place.

        Raises what `TritonServer.prepare` and `read` do.
        """
        super().prepare()
        if not self._is_there():
            self.edition = self.read()

    def start(self) -> Self:
        """As `TritonServer.start`, and have the models answer a trial. Raises what that and `try_out` do."""
        super().start()
        try:
            self._try_out()
        except BaseException:
            self.kill()
            raise
        return self

    def read(self) -> Edition:
        """The bundle at its path now, every file of it verified; the models do not hash the files again.

        A path with links is followed now: they may be changed later. Raises what `Bundle.open`, `Bundle.verify` and
        `layout.choose` do.
        """
        bundle = Bundle.open(os.path.realpath(self._bundle), device=self._device)
        chosen = None if asks_device(self._layout, self._memory) else choose(self._layout, bundle, self._memory)
        bundle.verify()
        return replace(
            self.edition,
            repository=None if chosen is None else _files(chosen),
            layout=chosen,
            environment=self.edition.environment | {VERIFIED_VARIABLE: bundle.handover()},
            folders={BUNDLE_VARIABLE: bundle.path},
            bundle=bundle,
        )

    def _repository(self) -> Path | Mapping[str, str]:
        bundle = self.edition.bundle
        if self.edition.repository is None and bundle is not None:
            chosen = choose(self._layout, bundle, self._memory)
            self.edition = replace(self.edition, repository=_files(chosen), layout=chosen)
        return super()._repository()

    def device_bytes(self, request: Plan) -> int | None:
        bundle, layout = self.edition.bundle, self.edition.layout
        if bundle is None or layout is None:
            return None
        return device_bytes(bundle, request, processes=layout == ENSEMBLE_LAYOUT, memory=self._memory)

    def _try_out(self) -> None:
        listens, running = self._listens, self._guard
        if listens is None or running is None:  # another thread has called `stop`
            raise ServerError("the server was ended while it started")
        try:
            with listens.channel() as channel:
                try_out(channel, self._ready_timeout)
        except Busy:  # without a door, callers came first
            return
        except ServerDied:
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(_ENDING)  # the log is complete then
            self._log.finish()
            raise self._log.failure() from None

    def _is_there(self) -> bool:
        bundle = self.edition.bundle
        if bundle is None:
            return False
        try:
            return Bundle.open(bundle.path, device=self._device).fingerprint == bundle.fingerprint
        except BundleError:
            return False


def _files(layout: str) -> Path | dict[str, str]:
    return model_repository().resolve() if layout == ENSEMBLE_LAYOUT else repository(layout)
