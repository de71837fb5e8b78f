"""The fake GPU needs g++: without it its tests are skipped, except in CI."""

import os

import pytest

from consisid_benchmarks.fake_gpu import device


@pytest.fixture(scope="session")
def fake_gpu() -> None:
    if (reason := device.missing()) and not os.environ.get("CI"):
        pytest.skip(reason)
