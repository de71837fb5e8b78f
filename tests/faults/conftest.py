"""One server for all of a file, and requests whose videos are known."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fault_requests import Known, make_known
from fault_server import FaultServer
from PIL import Image

QUICK = {
    "stubborn_seconds": 3,
    "head_seconds": 1,
    "body_seconds": 2,
    "idle_seconds": 2,
    "next_seconds": 1,
    "queue": 8,
    "client_share": 1,
}
"""Settings whose bounds a test reaches in seconds."""


@pytest.fixture(scope="session")
def known(untrained_bundle: Path, portrait: bytes) -> list[Known]:
    with Image.open(io.BytesIO(portrait)) as image:
        pixels = np.asarray(image.convert("RGB"))[:, ::-1]
    Image.fromarray((pixels * 0.8).astype(np.uint8)).save(mirrored := io.BytesIO(), "PNG")
    return make_known(untrained_bundle, {"portrait": portrait, "mirrored": mirrored.getvalue()})


@pytest.fixture(scope="module")
def server(untrained_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultServer]:
    """Of the layout that starts soonest. Its end belongs to the tests: nothing may be left."""
    folder = tmp_path_factory.mktemp("server")
    with FaultServer(untrained_bundle, folder, layout="single", settings=QUICK) as started:
        yield started
        assert started.stop() == 0
    assert started.left() == []


@pytest.fixture
def start(untrained_bundle: Path, tmp_path: Path) -> Callable[..., FaultServer]:
    """Makes a server that is not started yet; keyword arguments as for `FaultServer`."""
    return lambda **others: FaultServer(untrained_bundle, tmp_path, **{"settings": QUICK, **others})
