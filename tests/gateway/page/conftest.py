"""A gateway on a free port, a worker that tests move by hand, and a Chromium that looks at the page."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from page_gateway import Gateway
from page_hand import Hand, encoded, picture
from shop import with_tables

from consisid_gateway.api.parts import Parts
from consisid_gateway.jobs.database import Database
from consisid_gateway.jobs.queue import Queue
from consisid_gateway.objects.store import Store

CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with its tables, which take longer to be made than to be copied."""
    path = tmp_path_factory.mktemp("prepared") / "jobs.db"
    with_tables(f"sqlite:///{path}")
    return path


@pytest.fixture
def gateway(tmp_path: Path, prepared: Path) -> Iterator[Gateway]:
    shutil.copy(prepared, tmp_path / "jobs.db")
    database, store = Database(f"sqlite:///{tmp_path}/jobs.db"), Store(f"{tmp_path}/objects")
    queue = Queue(database)
    gateway = Gateway(Parts(database, queue, store), Hand(database, store))
    gateway.start()
    yield gateway
    gateway.stop()
    queue.close()
    database.close()


@pytest.fixture
def hand(gateway: Gateway) -> Hand:
    return gateway.hand


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("needs Debian's chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any, gateway: Gateway) -> Iterator[Callable[..., Any]]:
    """Opens the page in a context of its own. Fails for errors of the console, refusals of the policy, other hosts.

    `expected`: parts of messages of the console that a test provokes.
    """
    contexts: list[Any] = []
    problems: list[str] = []

    def opened(*, expected: tuple[str, ...] = (), path: str = "", **settings: Any) -> Any:
        settings.setdefault("viewport", {"width": 1280, "height": 900})
        context = browser.new_context(locale="en", **settings)
        context.set_default_timeout(5000)
        contexts.append(context)
        context.add_init_script(
            "addEventListener('securitypolicyviolation', (event) => console.error('policy', event.violatedDirective))"
        )
        page = context.new_page()

        def said(message: Any) -> None:
            if message.type in ("error", "warning") and not any(part in message.text for part in expected):
                problems.append(message.text)

        def asked(request: Any) -> None:
            if not request.url.startswith((gateway.url, "blob:", "data:")):
                problems.append(f"asked {request.url}")

        page.on("console", said)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", asked)
        page.goto(gateway.url + path)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def page(open_page: Callable[..., Any]) -> Any:
    return open_page()


@pytest.fixture(scope="session")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of nobody: what is found in it, the hand says."""
    path = tmp_path_factory.mktemp("portraits") / "someone.png"
    path.write_bytes(encoded(picture(3, 400, 500), "PNG"))
    return path
