"""How alike a video's faces are to the portrait: on request, the same number however the request comes."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import consisid_nano
from consisid_export.checkpoint import example
from consisid_nano.world import picture
from consisid_nano.world.person import person
from consisid_runtime import Options, Pipeline, Video
from consisid_runtime.errors import InvalidOption, NoFace, RequestCancelled, SharedMemoryFull
from consisid_runtime.events import Event, Progress, silent
from consisid_runtime.plan import Plan
from consisid_runtime.stages.similarity import MOST, chosen, similarity
from consisid_runtime.stages.table import STAGES, Info, Stage, Values
from consisid_runtime.wire import Extras, read_options, write_parameters

EXAMPLE = example.read(consisid_nano.checkpoint())
PROMPT = EXAMPLE.calibration[0][0]
SHORT = Options(steps=2, frames=9, seed=1)


@pytest.fixture(scope="module")
def pipeline(trained_bundle_of: Callable[[str], Path]) -> Pipeline:
    return Pipeline.open(trained_bundle_of("mixed"), device="cpu")


def measured(video: Video) -> Info:
    """Without the seconds, which differ."""
    return dict(video.info["similarity"])


def test_it_is_the_same_in_every_way_and_changes_no_byte(pipeline: Pipeline) -> None:
    plain = pipeline.generate(EXAMPLE.portrait, PROMPT, SHORT)
    assert "similarity" not in plain.info and "similarity" not in plain.info["seconds"]
    asked = pipeline.generate(EXAMPLE.portrait, PROMPT, SHORT, similarity=True)
    assert asked.mp4 == plain.mp4 and np.array_equal(asked.frames, plain.frames)
    found = measured(asked)
    assert found.keys() == {"mean", "minimum", "frames", "frames_without_face"} and found["frames"] == MOST
    assert asked.info["seconds"]["similarity"] > 0
    assert measured(pipeline.generate(EXAMPLE.portrait, PROMPT, SHORT, similarity=True)) == found, "a cached face"
    known = pipeline.identify(EXAMPLE.portrait)
    assert measured(pipeline.generate(known, PROMPT, SHORT, similarity=True)) == found
    *events, video = pipeline.stream(known, PROMPT, SHORT, similarity=True)
    assert isinstance(video, Video) and measured(video) == found and video.mp4 == plain.mp4
    told = [event for event in events if isinstance(event, Event) and event.stage == "similarity"]
    assert [(event.done, event.total) for event in told] == [(number, MOST) for number in range(MOST)]


def test_frames_without_a_face_are_no_error(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.stages["face"], "embed", lambda _: _raise(NoFace("planted")))
    video = pipeline.generate(EXAMPLE.portrait, PROMPT, SHORT, similarity=True)
    assert measured(video) == {"mean": None, "minimum": None, "frames": MOST, "frames_without_face": MOST}


def _raise(error: Exception) -> None:
    raise error


def run(frames: list[str], own: Any = (3.0, 0.0), look: Progress = silent) -> Info:
    """Of frames that have the colours of faces whose embeddings are known."""
    colours = {"same": (255, 0, 0), "other": (0, 255, 0), "between": (0, 0, 255), "nobody": (9, 9, 9)}
    seen = {colours["same"]: (7.0, 0.0), colours["other"]: (0.0, 2.0), colours["between"]: (1.0, 1.0)}

    def call(stage: Stage, values: Values, plan: Plan, reports: Mapping[str, Info], look: Progress) -> tuple[Any, Info]:
        assert stage.name == "face" and values["prompt"] == "a man" and values["embed"] == [1]
        with Image.open(io.BytesIO(values["image"])) as image:
            colour = image.getpixel((3, 2))
        if colour not in seen:
            raise NoFace("nobody")
        return {"embedding": np.array(seen[colour], np.float32)}, {}

    stack = np.stack([np.full((4, 6, 3), colours[name], np.uint8) for name in frames])
    values = {"embedding": np.array(own, np.float32), "frames": stack, "prompt": "a man"}
    parts: Any = similarity(values, None, look, call)  # type: ignore[arg-type]
    while True:
        try:
            next(parts)
        except StopIteration as end:
            found = dict(end.value)
            found.pop("seconds")
            return found


def test_mean_and_minimum_are_of_the_frames_with_a_face() -> None:
    assert run(["same", "between", "nobody"]) == {
        "mean": round((1 + 2**-0.5) / 2, 4), "minimum": round(2**-0.5, 4), "frames": 3, "frames_without_face": 1
    }  # fmt: skip
    assert run(["same", "other"])["minimum"] == 0
    assert run(["nobody"]) == {"mean": None, "minimum": None, "frames": 1, "frames_without_face": 1}


def test_at_most_eight_frames_are_looked_at_evenly() -> None:
    assert chosen(49) == [0, 7, 14, 21, 27, 34, 41, 48] and chosen(3) == [0, 1, 2] and chosen(1) == [0]
    assert run(["same", *["other"] * 7, *["same"] * 0])["frames"] == MOST
    for count in range(1, 400):
        places = chosen(count)
        assert len(set(places)) == min(MOST, count) and places[0] == 0 and places[-1] == count - 1


@pytest.mark.parametrize(
    ("error", "problem"), [(SharedMemoryFull("planted"), "SHARED_MEMORY_FULL"), (MemoryError("planted"), "MemoryError")]
)
def test_what_goes_wrong_with_it_loses_no_video(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, error: Exception, problem: str
) -> None:
    monkeypatch.setattr(pipeline.stages["face"], "embed", lambda _: _raise(error))
    video = pipeline.generate(EXAMPLE.portrait, PROMPT, SHORT, similarity=True)
    nothing = {"mean": None, "minimum": None, "frames": 0, "frames_without_face": 0}
    assert video.mp4 and measured(video) == nothing | {"problem": problem}
    assert any(problem in warning for warning in video.info["warnings"])


def test_who_leaves_ends_it() -> None:
    looks: list[int] = []

    def look(label: str, done: int, total: int) -> None:
        looks.append(done)
        if done == 2:
            raise RequestCancelled("planted")

    with pytest.raises(RequestCancelled):
        run(["same"] * 5, look=look)
    assert looks == [0, 1, 2]


def test_it_crosses_the_wire() -> None:
    sent = write_parameters(SHORT, Extras(similarity=True))
    assert sent["similarity"] is True and read_options(sent) == (SHORT, Extras(similarity=True))
    assert "similarity" not in write_parameters(SHORT)
    with pytest.raises(InvalidOption, match="similarity must be true or false"):
        Extras(similarity="yes")  # type: ignore[arg-type]


def test_a_wrong_portrait_is_less_alike(pipeline: Pipeline) -> None:
    """Two people's videos, of few steps. A comparison with a planted portrait, another's, must lose."""
    people = [shown(seed) for seed in (11, 12)]
    own, planted = [], []
    for own_one, other in (people, people[::-1]):
        video = pipeline.generate(own_one, PROMPT, Options(steps=12, frames=9, seed=3), similarity=True)
        own.append(video.info["similarity"]["mean"])
        planted.append(compared(pipeline, video, other))
        assert compared(pipeline, video, own_one) == own[-1]
    assert min(own) > max(planted) + 0.1, (own, planted)


def shown(seed: int) -> bytes:
    """A person of the small checkpoint's world."""
    Image.fromarray(picture.portrait(person(seed), seed).pixels).save(out := io.BytesIO(), "PNG")
    return out.getvalue()


def compared(pipeline: Pipeline, video: Video, portrait: bytes) -> float:
    """The mean of a finished video, with this portrait instead of its own."""
    request = pipeline.bundle.plan(SHORT)
    stage, look = STAGES[0], silent
    outputs, _ = stage.call(pipeline.stages["face"], {"image": portrait}, request, look)
    values = {"embedding": outputs["embedding"], "frames": video.frames, "prompt": PROMPT}

    def call(stage: Stage, values: Values, plan: Plan, reports: Mapping[str, Info], look: Progress) -> tuple[Any, Info]:
        return stage.call(pipeline.stages[stage.name], values, plan, look)

    parts = similarity(values, request, look, call)
    while True:
        try:
            next(parts)
        except StopIteration as end:
            return float(end.value["mean"])
