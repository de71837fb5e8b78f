"""When a worker may take jobs for its server."""

from __future__ import annotations

from typing import Any

import pytest

from consisid_gateway.worker.maker import ServerMaker
from consisid_runtime import Options
from consisid_runtime.errors import Busy, Unauthenticated


class Server:
    """In place of a client.

    Attributes:
        up: whether it is ready.
        refusal: of every request.
    """

    def __init__(self) -> None:
        self.up, self.asked = True, 0
        self.refusal: Exception | None = None

    def ready(self) -> bool:
        return self.up

    def estimate(self, options: Options) -> None:
        self.asked += 1
        if self.refusal is not None:
            raise self.refusal


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def maker(server: Server) -> ServerMaker:
    client: Any = server
    return ServerMaker(lambda trace: client, 1.0)


def test_a_server_that_takes_the_token_is_asked_once(server: Server, maker: ServerMaker) -> None:
    assert maker.ready() and maker.ready() and server.asked == 1


def test_a_server_that_refuses_the_token_is_not_ready(server: Server, maker: ServerMaker) -> None:
    server.refusal = Unauthenticated("this server wants a token")
    assert not maker.ready() and not maker.ready()
    server.refusal = None
    assert maker.ready()


def test_a_server_that_was_away_may_have_another_token(server: Server, maker: ServerMaker) -> None:
    assert maker.ready()
    server.up = False
    assert not maker.ready()
    server.up, server.refusal = True, Unauthenticated("this server wants a token")
    assert not maker.ready()


def test_a_busy_server_has_taken_the_token(server: Server, maker: ServerMaker) -> None:
    server.refusal = Busy("try again later")
    assert maker.ready()
