"""One HTTP request and its response under a deadline.

The work runs in a thread of its own: neither the resolver nor a peer that sends single bytes can hold the caller.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from consisid_runtime.client.transport import PATIENCE
from consisid_runtime.errors import ServerError, ServerTimeout, ServerUnreachable

MAX_ANSWER = 2**31 - 1
"""Bytes of a response; the limit of gRPC too."""

_ATTEMPT = 5.0
"""Seconds for one attempt to connect to one address."""
_BACKOFF, _LONGEST_BACKOFF = 0.1, 1.0
_PIECE = 2**20


@dataclass(frozen=True)
class Request:
    """What is sent, and where to: `target` is a path, or a whole URL for a proxy."""

    host: str
    port: int
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes | None = None


@dataclass(frozen=True)
class Response:
    """Status, header fields and body as they came."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Exchange:
    """Args:
    request: what is sent.
    shown: the server in messages.
    patience: seconds for which connecting is tried again.
    """

    def __init__(self, request: Request, shown: str, *, patience: float = PATIENCE) -> None:
        self._request = request
        self._shown = shown
        self._patience = patience
        self._socket: socket.socket | None = None
        self._done = threading.Event()
        self._ended = False
        self._result: Response | Exception | None = None

    def run(self, timeout: float) -> Response:
        """Send and receive. Raises `ServerTimeout`, `ServerUnreachable`, or `ServerError` for what is not HTTP."""
        threading.Thread(target=self._work, args=(time.monotonic() + timeout,), daemon=True).start()
        try:
            self._done.wait(timeout)
            # Not what the thread ends with because of `end`.
            result = self._result
        finally:
            self.end()
        if result is None:
            raise ServerTimeout(f"{self._shown} did not answer within {timeout:g} s")
        if isinstance(result, Exception):
            raise result
        return result

    def end(self) -> None:
        """Wake the caller and end the thread, at the latest when the resolver or an attempt to connect ends."""
        self._ended = True
        self._done.set()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _work(self, deadline: float) -> None:
        try:
            self._result = self._exchange(deadline)
        except TimeoutError:
            pass
        except Exception as error:
            self._result = self._typed(error)
        self._done.set()

    def _exchange(self, deadline: float) -> Response:
        connection = self._connected(deadline)
        try:
            # A server that refuses a request by its header answers and closes before it has read the body.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(
                    self._request.method, self._request.target, self._request.body, dict(self._request.headers)
                )
            response = connection.getresponse()
            return Response(response.status, response.headers, _body(response))
        finally:
            connection.close()

    def _connected(self, deadline: float) -> http.client.HTTPConnection:
        patience = min(deadline, time.monotonic() + self._patience)
        pause = _BACKOFF
        while True:
            attempt = max(0.0, min(deadline - time.monotonic(), _ATTEMPT))
            connection = http.client.HTTPConnection(self._request.host, self._request.port, timeout=attempt)
            try:
                connection.connect()
            except (OSError, UnicodeError) as error:
                connection.close()
                if isinstance(error, TimeoutError) and time.monotonic() >= deadline:
                    raise
                if self._ended or time.monotonic() + pause >= patience:
                    raise _NoConnection(_reason(error)) from error
            else:
                self._socket = connection.sock
                self._socket.settimeout(max(0.001, deadline - time.monotonic()))
                if self._ended:
                    connection.close()
                    raise TimeoutError
                return connection
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_BACKOFF)

    def _typed(self, error: Exception) -> ServerError:
        typed: ServerError
        if isinstance(error, _NoConnection):
            typed = ServerUnreachable(f"{self._shown}: {error}; is the server running?")
        elif isinstance(error, OSError):
            typed = ServerUnreachable(
                f"{self._shown} closed the connection before it had answered ({_reason(error)}); does the server run?"
            )
        elif isinstance(error, _TooLong):
            typed = ServerError(f"{self._shown} answered with more than {MAX_ANSWER} bytes")
        elif isinstance(error, http.client.IncompleteRead):
            typed = ServerError(f"{self._shown} closed the connection in the middle of its answer")
        else:
            typed = ServerError(f"{self._shown} did not answer in HTTP ({type(error).__name__}: {str(error)[:200]})")
        typed.__cause__ = error
        return typed


class _NoConnection(Exception):
    pass


class _TooLong(Exception):
    pass


def _body(response: http.client.HTTPResponse) -> bytes:
    pieces = []
    room = MAX_ANSWER - (response.length or 0)
    while room >= 0 and (piece := response.read(_PIECE)):
        pieces.append(piece)
        room -= len(piece) if response.length is None else 0
    if room < 0:
        raise _TooLong
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    return b"".join(pieces)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
