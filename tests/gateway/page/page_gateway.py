"""A gateway that a test can stop and start again."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from page_hand import Hand, until

from consisid_gateway.api import page
from consisid_gateway.api.app import make_app
from consisid_gateway.api.failures import failure
from consisid_gateway.api.guarded import Exposure, guarded
from consisid_gateway.api.parts import Parts
from consisid_gateway.watch.meters import Meters


@dataclass
class Gateway:
    """One that can be stopped and started again at the same address."""

    parts: Parts
    hand: Hand
    port: int = 0
    _server: uvicorn.Server | None = None
    _thread: threading.Thread | None = None
    _listener: socket.socket | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        config = uvicorn.Config(self._application(), log_level="critical", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]})
        self._thread.start()
        until(lambda: (self._server is not None and self._server.started) or None)

    def stop(self) -> None:
        if self._server is None or self._thread is None or self._listener is None:
            return
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()
        self._listener.close()
        self._server = None

    def _application(self) -> Any:
        """As `consisid gateway` has it on loopback."""
        app = make_app(self.parts)
        app.include_router(page.router)
        return guarded(app, self.parts.database, Exposure(), Meters(self.parts.database, lambda: 0), failure)
