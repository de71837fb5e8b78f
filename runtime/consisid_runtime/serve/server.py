"""Serves a bundle: its models on NVIDIA's Triton server, with `TritonServer`'s safe defaults."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from typing import Any, Self

from consisid_runtime.bundle import Bundle
from consisid_runtime.engines import check_device
from consisid_runtime.errors import ServerDied
from consisid_runtime.memory.decide import Setting
from consisid_runtime.serve.layout import AUTO, check, choose
from consisid_runtime.serve.repository import SINGLE_LAYOUT, repository
from consisid_runtime.serve.trial import try_out
from consisid_runtime.serve.tritonserver import TritonServer
from consisid_runtime.wire import (
    BUNDLE_VARIABLE,
    DEVICE_VARIABLE,
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
        **settings: Any,
    ) -> None:
        check_device(device)
        check(layout, memory)
        self._bundle, self._device, self._layout, self._memory = Path(bundle), device, layout, memory
        chosen = {MEMORY_VARIABLE: None if memory is None else str(memory), WATERMARK_VARIABLE: watermark}
        super().__init__(
            model_repository(),
            environment={DEVICE_VARIABLE: device}
            | {name: value for name, value in chosen.items() if value is not None},
            folders={BUNDLE_VARIABLE: self._bundle},
            **settings,
        )

    def start(self) -> Self:
        """Check address and ports, then every file of the bundle, then start, and have the models answer a trial.

        The models do not hash the files again. A later start leaves the files to them, and they hash those that were
        touched meanwhile. Raises what `Bundle.open`, `Bundle.verify`, `TritonServer.start` and `try_out` do.
        """
        self.choose_address()
        if VERIFIED_VARIABLE not in self._environment:
            bundle = Bundle.open(self._bundle, device=self._device)
            if choose(self._layout, bundle, self._memory) == SINGLE_LAYOUT:
                self._repository = repository(SINGLE_LAYOUT)
            bundle.verify()
            self.plan = bundle.plan
            self._environment[VERIFIED_VARIABLE] = bundle.handover()
        super().start()
        try:
            self._try_out()
        except BaseException:
            self.kill()
            raise
        return self

    def _try_out(self) -> None:
        listens, running = self._listens, self._guard
        assert listens is not None and running is not None
        try:
            with listens.channel() as channel:
                try_out(channel, self._ready_timeout)
        except ServerDied:
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(_ENDING)  # the log is complete then
            self._join_reader()
            raise self._failure() from None
