"""What was read of a photograph is kept by its content and by handles, for some time, and can be forgotten."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from consisid_runtime.errors import IdentityExpired, InvalidOption, NoFace
from consisid_runtime.events import silent
from consisid_runtime.options import Options
from consisid_runtime.plan import Geometry, plan
from consisid_runtime.stages.face import faces as module
from consisid_runtime.stages.face.faces import Faces
from consisid_runtime.stages.face.quality import quality
from consisid_runtime.stages.table import STAGES

PLAN = plan(Options(), Geometry(9, 32, 32, 8, 4, 2, fixed_size=False))


class Reader:
    """Counts how often faces are read."""

    def __init__(self, **settings: Any) -> None:
        self.count = 0
        self.faces = Faces(**settings)
        self.call = self.faces.kept(self._read)

    def _read(self, stage: Any, values: Any, plan: Any, reports: Any, look: Any) -> Any:
        self.count += 1
        return {"face_tokens": bytes(values["image"])}, {"faces": self.count}

    def __call__(self, changed: Any = PLAN, **values: Any) -> Any:
        return self.call(STAGES[0], values, changed, {}, silent)

    def name(self, image: bytes) -> str:
        self(image=image)
        return self.faces.name(image, PLAN)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    time = SimpleNamespace(now=0.0)
    time.monotonic = lambda: time.now
    monkeypatch.setattr(module, "time", time)
    return time


def test_a_photograph_is_read_once_for_each_choice_of_options() -> None:
    reader = Reader()
    first, again = reader(image=b"a"), reader(image=b"a")
    assert first == ({"face_tokens": b"a"}, {"faces": 1, "face_cached": False})
    assert again == ({"face_tokens": b"a"}, {"faces": 1, "face_cached": True})
    for options in (Options(face_index=0), Options(keypoints="source")):
        assert not reader(replace(PLAN, options=options), image=b"a")[1]["face_cached"]
    assert not reader(image=b"b")[1]["face_cached"] and reader.count == 4


def test_what_is_held_is_measured(clock: SimpleNamespace) -> None:
    reader = Reader(seconds=10)
    reader._read = lambda *_: ({"face_tokens": np.ones((1, 4), np.float32), "portrait": np.ones(9, np.uint8)}, {})  # type: ignore[method-assign]
    reader.call = reader.faces.kept(lambda *arguments: reader._read(*arguments))
    assert reader.faces.size == 0
    handle = reader.name(b"a")
    reader(image=b"b")
    assert reader.faces.size == 50, "a handle's is the photograph's own"
    reader.faces.forget(handle)
    assert reader.faces.size == 25


def test_other_stages_are_passed_on() -> None:
    reader = Reader()
    for _ in range(2):
        reader.call(STAGES[1], {"image": b"a"}, PLAN, {}, silent)
    assert reader.count == 2


def test_a_handle_stands_for_the_photograph() -> None:
    reader = Reader()
    handles = [reader.name(image) for image in (b"a", b"b", b"a")]
    assert len(set(handles)) == 3 and all(len(handle) == 32 for handle in handles)
    assert [reader(identity=handle)[0]["face_tokens"] for handle in handles] == [b"a", b"b", b"a"]
    assert reader.count == 2 and reader.faces.digest({"identity": handles[0]}) == reader.faces.digest({"image": b"a"})


def test_a_handle_is_of_the_options_it_was_read_with() -> None:
    reader = Reader()
    handle = reader.name(b"a")
    with pytest.raises(InvalidOption, match=r"read with \{'face_index': None, 'keypoints': 'crop'\}"):
        reader(replace(PLAN, options=Options(face_index=1)), identity=handle)


def test_nothing_but_the_whole_photograph_brings_its_face() -> None:
    reader, photograph = Reader(), bytes(range(256))
    reader(image=photograph)
    others = [photograph[:size] for size in range(256)]
    others += [photograph + b"\0", photograph[1:], photograph[::-1], photograph.upper(), photograph * 2]
    for place in range(256):
        others.append(photograph[:place] + bytes([photograph[place] ^ 1]) + photograph[place + 1 :])
    for other in others:
        outputs, info = reader(image=other)
        assert outputs["face_tokens"] == other and not info["face_cached"]


def test_what_was_refused_leaves_nothing_to_be_found() -> None:
    def failing(*_: Any) -> Any:
        raise NoFace("there is none")

    reader = Reader()
    for _ in range(2):
        with pytest.raises(NoFace):
            reader.faces.kept(failing)(STAGES[0], {"image": b"a"}, PLAN, {}, silent)
    with pytest.raises(KeyError):
        reader.faces.name(b"a", PLAN)
    assert reader(image=b"a")[0]["face_tokens"] == b"a"


def test_a_handle_can_be_neither_guessed_nor_counted_nor_used_elsewhere() -> None:
    readers = Reader(kept=999), Reader()
    handles = {readers[0].name(b"a") for _ in range(500)}
    # 24 bytes by chance: of 500, no two begin alike, and each place has most of the 64 characters.
    assert len({handle[:10] for handle in handles}) == 500
    assert all(len({handle[place] for handle in handles}) > 48 for place in range(32))
    handle = handles.pop()
    for other in (handle[:-1], handle + "A", handle.swapcase(), f" {handle}", handle[:-1] + "~", ""):
        with pytest.raises(IdentityExpired):
            readers[0](identity=other)
    with pytest.raises(IdentityExpired):
        readers[1](identity=handle)
    assert readers[0](identity=handle)


def test_unknown_forgotten_and_old_handles_are_refused(clock: SimpleNamespace) -> None:
    reader = Reader(seconds=10.0)
    kept, forgotten = reader.name(b"a"), reader.name(b"b")
    for _ in range(2):
        reader.faces.forget(forgotten)
    for handle in ("", "x" * 32, forgotten):
        with pytest.raises(IdentityExpired):
            reader(identity=handle)
    reader(identity=kept)
    clock.now = 10.1
    with pytest.raises(IdentityExpired):
        reader(identity=kept)


def test_forgetting_forgets_the_content_too_unless_another_handle_stands_for_it() -> None:
    reader = Reader()
    one, other = reader.name(b"a"), reader.name(b"a")
    reader.faces.forget(one)
    assert reader(identity=other) and reader(image=b"a")[1]["face_cached"]
    reader.faces.forget(other)
    assert not reader(image=b"a")[1]["face_cached"]


def test_the_latest_are_kept() -> None:
    reader = Reader(kept=2)
    handles = [reader.name(image) for image in (b"a", b"b", b"c")]
    with pytest.raises(IdentityExpired):
        reader(identity=handles[0])
    assert reader(identity=handles[2]) and reader(image=b"b")[1]["face_cached"]
    assert not reader(image=b"a")[1]["face_cached"]


def test_nothing_is_kept_where_none_is_to_be() -> None:
    reader = Reader(kept=0)
    assert not any(reader(image=b"a")[1]["face_cached"] for _ in range(2))


def test_quality_tells_sharp_from_blurred_turned_from_straight_and_what_is_hidden() -> None:
    crop = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    labels = np.zeros((512, 512), np.uint8)
    labels[:20, :20], labels[30:50, :20] = 4, 10
    straight = np.array([[0, 0], [100, 0], [50, 60], [20, 90], [80, 90]], np.float32)
    turned = straight + np.array([[0, 0], [0, 0], [25, 0], [0, 0], [0, 0]], np.float32)
    box = np.array([10.0, 20.0, 110.0, 170.0])
    found = quality(box, straight, crop, labels)
    flat = quality(box, turned, np.full_like(crop, 90), labels)
    assert found["face_pixels"] == 100.0 and found["face_yaw"] == 0.0 and flat["face_yaw"] == 30.0
    assert found["face_sharpness"] > 50 > flat["face_sharpness"]
    assert found["face_hidden"] == ["right eye", "mouth"]
    labels[60:80, :20] = 6
    assert quality(box, straight, crop, labels)["face_hidden"] == ["mouth"]
    assert quality(box, np.zeros((5, 2), np.float32), crop, labels)["face_yaw"] == 90.0


@pytest.mark.parametrize("settings", [{"kept": -1}, {"seconds": 0.0}, {"seconds": float("nan")}])
def test_bounds_that_are_none(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match="kept from 0 on"):
        Faces(**settings)
