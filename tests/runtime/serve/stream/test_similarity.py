"""Similarity and estimates of the models themselves, in both layouts.

Each layout is a server of its own, of the trained checkpoint: only its videos have faces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import consisid_nano
from consisid_export.checkpoint import example
from consisid_runtime import Client, Options, Pipeline, Video
from consisid_runtime.errors import InvalidOption
from consisid_runtime.serve.repository import ENSEMBLE_LAYOUT, SINGLE_LAYOUT
from consisid_runtime.serve.server import Server

pytestmark = pytest.mark.server

EXAMPLE = example.read(consisid_nano.checkpoint())
PROMPT = EXAMPLE.calibration[0][0]
OPTIONS = Options(steps=12, frames=9, seed=3)


@pytest.fixture(scope="module")
def bundle(trained_bundle_of: Callable[[str], Path]) -> Path:
    return trained_bundle_of("mixed")


@pytest.fixture(scope="module")
def here(bundle: Path) -> Video:
    return Pipeline.open(bundle, device="cpu").generate(EXAMPLE.portrait, PROMPT, OPTIONS, similarity=True)


@pytest.fixture(scope="module", params=[pytest.param(ENSEMBLE_LAYOUT, marks=pytest.mark.proof), SINGLE_LAYOUT])
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def client(layout: str, bundle: Path) -> Iterator[Client]:
    with Server(bundle, device="cpu", layout=layout) as server, Client(server.grpc_url, timeout=120) as opened:
        yield opened


def last(stream: Any) -> Video:
    *_, video = stream
    assert isinstance(video, Video)
    return video


def test_the_numbers_are_those_of_the_pipeline(client: Client, here: Video, layout: str) -> None:
    found = here.info["similarity"]
    assert found["mean"] > 0.3 and found["frames_without_face"] == 0
    streamed = last(client.stream(EXAMPLE.portrait, PROMPT, OPTIONS, similarity=True))
    assert streamed.info["similarity"] == found and streamed.mp4 == here.mp4
    known = client.identify(EXAMPLE.portrait)
    assert client.generate(known, PROMPT, OPTIONS, similarity=True).info["similarity"] == found
    assert "similarity" not in last(client.stream(known, PROMPT, OPTIONS)).info
    if layout == ENSEMBLE_LAYOUT:
        with pytest.raises(InvalidOption, match="behind the door or by consisid_stream"):
            client.generate(EXAMPLE.portrait, PROMPT, OPTIONS, similarity=True)
    else:
        assert client.generate(EXAMPLE.portrait, PROMPT, OPTIONS, similarity=True).info["similarity"] == found


def test_the_models_estimate_what_they_have_measured(client: Client, layout: str) -> None:
    made = last(client.stream(EXAMPLE.portrait, PROMPT, OPTIONS)).info["seconds"]
    found = client.estimate(Options(steps=24, frames=9))
    assert found.stages.keys() == made.keys() and found.stages["denoise"] == pytest.approx(2 * made["denoise"], rel=0.5)
    assert (found.position, found.seconds_queued, found.device_bytes) == (0, 0, 0)
    assert (found.host_bytes is None) == (layout == ENSEMBLE_LAYOUT), (
        "other processes' memory is not known to one model"
    )
    for other in (Options(steps=30, frames=9), Options(steps=8, frames=17), Options(steps=16, frames=9, guidance=1.0)):
        foreseen = client.estimate(other)
        took = last(client.stream(EXAMPLE.portrait, PROMPT, other)).info
        seconds = sum(took["seconds"].values()) - took["seconds"]["face"]
        assert foreseen.seconds is not None
        assert 0.5 < (foreseen.seconds - foreseen.stages["face"]) / seconds < 2, (other, foreseen, took["seconds"])
    rest = client.stream(EXAMPLE.portrait, PROMPT, Options(steps=1000, frames=9))
    with rest:
        while next(rest).done < 2:  # type: ignore[union-attr]
            pass
        waiting = client.estimate()
        assert waiting.position == 1 and waiting.seconds_queued is not None and waiting.seconds_queued > 1
    with pytest.raises(InvalidOption, match="8k"):
        client.estimate(Options(frames=10))
