"""`Pipeline.stream`: the bytes of `generate`, whatever interrupts it."""

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import consisid_nano
from consisid_export.checkpoint import example
from consisid_runtime.errors import CheckpointRefused, IdentityExpired, InvalidOption
from consisid_runtime.events import Event
from consisid_runtime.options import Options
from consisid_runtime.pipeline import Pipeline
from consisid_runtime.stages import flow
from consisid_runtime.stages.checkpoint import Origin, read
from consisid_runtime.video import Video

EXAMPLE = example.read(consisid_nano.checkpoint())
REQUEST = (EXAMPLE.portrait, EXAMPLE.calibration[0][0], Options(steps=6, frames=9, seed=1))
OTHER = (EXAMPLE.portrait, EXAMPLE.calibration[1][0], Options(steps=4, frames=9, seed=2, tier="draft"))


@pytest.fixture(scope="module")
def pipeline(trained_bundle_of: Callable[[str], Path]) -> Pipeline:
    return Pipeline.open(trained_bundle_of("mixed"), device="cpu")


@pytest.fixture(autouse=True)
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part for each step."""
    monkeypatch.setattr(flow, "RANGE_SECONDS", 0.0)


@pytest.fixture(scope="module")
def plain(pipeline: Pipeline) -> bytes:
    return pipeline.generate(*REQUEST).mp4


def last(stream: Iterator[Event | Video]) -> Video:
    *events, video = stream
    assert isinstance(video, Video) and all(isinstance(event, Event) for event in events)
    return video


def test_the_video_is_that_of_a_plain_request(pipeline: Pipeline, plain: bytes) -> None:
    assert last(pipeline.stream(*REQUEST)).mp4 == plain


def test_two_requests_in_turns_do_not_touch_each_other(pipeline: Pipeline, plain: bytes) -> None:
    """Three, more than the denoiser keeps the beginning of."""
    wanted = [plain, pipeline.generate(*OTHER).mp4, plain]
    streams = [pipeline.stream(*request) for request in (REQUEST, OTHER, REQUEST)]
    videos: dict[int, bytes] = {}
    while len(videos) < 3:
        for number, stream in enumerate(streams):
            item = next(stream, None)
            if isinstance(item, Video):
                videos[number] = item.mp4
    assert [videos[number] for number in range(3)] == wanted


def test_a_checkpoint_of_any_step_ends_with_the_same_bytes(
    pipeline: Pipeline, plain: bytes, trained_bundle_of: Callable[[str], Path]
) -> None:
    stream = pipeline.stream(*REQUEST, checkpoint_seconds=1e-9)
    checkpoints = [item.checkpoint for item in stream if isinstance(item, Event) and item.checkpoint]
    assert len(checkpoints) == 5
    elsewhere = Pipeline.open(trained_bundle_of("mixed"), device="cpu")
    for checkpoint in checkpoints[1::2]:
        assert last(elsewhere.stream(*REQUEST, checkpoint=checkpoint)).mp4 == plain


@pytest.fixture(scope="module")
def checkpoint(pipeline: Pipeline) -> bytes:
    with_one = (i for i in pipeline.stream(*REQUEST, checkpoint_seconds=1e-9) if isinstance(i, Event) and i.checkpoint)
    return bytes(next(with_one).checkpoint or b"")


@pytest.mark.parametrize("place", [0, 9, 200, -3])
def test_a_damaged_checkpoint_is_refused(pipeline: Pipeline, checkpoint: bytes, place: int) -> None:
    damaged = bytearray(checkpoint)
    damaged[place] ^= 1
    for data in (bytes(damaged), checkpoint[:place], b""):
        with pytest.raises(CheckpointRefused):
            pipeline.stream(*REQUEST, checkpoint=data)


def test_a_checkpoint_of_something_else_is_refused(pipeline: Pipeline, checkpoint: bytes) -> None:
    with pytest.raises(CheckpointRefused, match="of another request"):
        pipeline.stream(REQUEST[0], "another prompt", REQUEST[2], checkpoint=checkpoint)
    with pytest.raises(CheckpointRefused, match="of another request"):
        pipeline.stream(*REQUEST[:2], replace(REQUEST[2], seed=9), checkpoint=checkpoint)
    plan = pipeline.bundle.plan(REQUEST[2])
    for other, what in ((Origin("x", "y", "z"), "bundle"), (Origin(pipeline.bundle.fingerprint, "y", "z"), "device")):
        with pytest.raises(CheckpointRefused, match=f"of another {what}"):
            read(checkpoint, other, plan)


def test_previews_become_the_first_frame(pipeline: Pipeline) -> None:
    *events, video = pipeline.stream(*REQUEST, previews=True)
    assert isinstance(video, Video)
    shown: list[Any] = [item.preview for item in events if isinstance(item, Event) and item.preview]
    assert len(shown) == 6
    small = (video.frames.shape[2] // 8, video.frames.shape[1] // 8)  # a latent has the size of eight pixels
    first, *pictures = (
        np.asarray(image.resize(small, Image.Resampling.BOX), np.float64)
        for image in (Image.fromarray(video.frames[0]), *(Image.open(io.BytesIO(data)) for data in shown))
    )
    errors = [float(np.abs(picture - first).mean()) for picture in pictures]
    mirrored = float(np.abs(pictures[-1][:, ::-1] - first).mean())
    assert errors[-1] < mirrored / 2 and errors[-1] < errors[0] / 2


def test_a_closed_stream_leaves_nothing(pipeline: Pipeline, plain: bytes) -> None:
    stream = pipeline.stream(*OTHER)
    for item in stream:
        if isinstance(item, Event) and item.done == 2:
            break
    stream.close()  # type: ignore[attr-defined]
    assert last(pipeline.stream(*REQUEST)).mp4 == plain


def test_what_is_wrong_is_said_before_the_first_event(pipeline: Pipeline) -> None:
    with pytest.raises(InvalidOption, match="checkpoint_seconds"):
        pipeline.stream(*REQUEST, checkpoint_seconds=-1)


def test_an_identity_makes_the_same_video_and_reads_no_face(pipeline: Pipeline, plain: bytes) -> None:
    identity = pipeline.identify(EXAMPLE.portrait)
    assert identity.info["faces"] == 1 and identity.handle not in repr(identity)
    video = pipeline.generate(identity, *REQUEST[1:])
    assert video.mp4 == plain and video.info["face"]["face_cached"]
    *_, streamed = pipeline.stream(identity, *REQUEST[1:])
    assert isinstance(streamed, Video) and streamed.mp4 == plain
    pipeline.forget(identity)
    with pytest.raises(IdentityExpired):
        pipeline.generate(identity, *REQUEST[1:])
