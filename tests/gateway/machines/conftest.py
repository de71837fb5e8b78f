"""The video that every way of asking for it must give."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from commands import PROMPT

from consisid_runtime import Options, Pipeline

OPTIONS: Mapping[str, int] = MappingProxyType({"steps": 150, "seed": 7})
"""Some seconds on a CPU, so that there is time to end something meanwhile."""


@pytest.fixture(scope="session")
def options() -> dict[str, int]:
    return dict(OPTIONS)


@pytest.fixture(scope="session")
def wanted(untrained_bundle: Path, portrait: bytes) -> bytes:
    """The MP4 of an undisturbed request, in this process."""
    pipeline = Pipeline.open(untrained_bundle, device="cpu")
    return pipeline.generate(portrait, PROMPT, Options(**OPTIONS)).mp4  # type: ignore[arg-type]
