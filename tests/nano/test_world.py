"""The drawn world is deterministic and correctly labelled, and moves slowly enough for the VAE."""

from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest

from consisid_nano.world import (
    ATTRIBUTES,
    FRAMES,
    HEIGHT,
    HELD_OUT_PEOPLE,
    LABELS,
    WIDTH,
    Scene,
    clip,
    person,
    portrait,
    prompt,
    scene,
)
from consisid_nano.world.head import EYE, HAIR, SKIN
from consisid_nano.world.scene import EXPRESSIONS, MOTIONS, PLACES, SPEECH

SCENE = Scene("beach", "shirt", "red", "calm", "still", "silent")


@pytest.mark.parametrize("draw", [lambda: portrait(person(5), 7, 256).pixels, lambda: clip(person(5), SCENE, 7).pixels])
def test_drawing_is_deterministic(draw) -> None:
    assert np.array_equal(draw(), draw())


def test_other_seeds_draw_other_people_and_pictures() -> None:
    assert person(5) != person(6)
    assert not np.array_equal(portrait(person(5), 7, 128).pixels, portrait(person(5), 8, 128).pixels)
    assert not np.array_equal(clip(person(5), SCENE, 7).pixels, clip(person(6), SCENE, 7).pixels)


def test_sizes_and_types() -> None:
    picture, video = portrait(person(1), 1, 200), clip(person(1), SCENE, 1)
    assert (picture.pixels.shape, picture.labels.shape) == ((200, 200, 3), (200, 200))
    assert video.pixels.shape == (FRAMES, HEIGHT, WIDTH, 3)
    assert (video.boxes.shape, video.keypoints.shape) == ((FRAMES, 4), (FRAMES, 5, 2))
    assert picture.pixels.dtype == video.pixels.dtype == np.uint8


@pytest.mark.parametrize("seed", range(8))
def test_keypoints_and_labels_agree_with_pixels(seed: int) -> None:
    who = replace(person(seed), glasses="none", hair_style="bald", beard="none")
    picture = portrait(who, seed, 512)
    for x, y in picture.keypoints[:2]:
        assert picture.labels[int(y), int(x)] == EYE
        # The pupil is the darkest part of the eye.
        assert picture.pixels[int(y), int(x)].max() < 60
    left, top, right, bottom = picture.box
    rows, columns = np.nonzero(picture.labels == SKIN)
    assert (
        left - 2 <= columns.min() and columns.max() <= right + 2 and rows.max() <= bottom + 2 and top - 2 <= rows.min()
    )
    assert not (picture.labels == HAIR).any()


@pytest.mark.parametrize("name", ["glasses", "scar", "mole"])
def test_marks_are_drawn(name: str) -> None:
    bare = replace(person(3), hair_style="bald", glasses="none", scar="none", mole="none", freckles=())
    without = portrait(bare, 1, 512).pixels
    for value in ATTRIBUTES[name][1:]:
        marked = portrait(replace(bare, **{name: value}), 1, 512).pixels
        assert (np.abs(marked.astype(int) - without).max(axis=2) > 30).sum() > 40, value


def test_freckles_are_drawn_on_every_skin() -> None:
    freckled = next(person(seed) for seed in range(100) if person(seed).freckles)
    for skin in ((255, 224, 200), (186, 128, 88), (112, 72, 48)):
        who = replace(freckled, skin=skin)
        bare = portrait(replace(who, freckles=()), 1, 512).pixels.astype(int)
        assert (np.abs(portrait(who, 1, 512).pixels - bare).max(axis=2) > 25).sum() > 200


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("speech", SPEECH)
def test_heads_move_slowly(motion: str, speech: str) -> None:
    points = clip(person(2), replace(SCENE, motion=motion, speech=speech), 3).keypoints
    speed = np.linalg.norm(np.diff(points[:, :3], axis=0), axis=2).max()
    assert speed <= (2.0 if motion == "nods" else 1.5)
    assert (speed < 1e-3) == (motion == "still")


def test_motions_have_their_directions() -> None:
    def nose(motion: str) -> np.ndarray:
        return clip(person(2), replace(SCENE, motion=motion), 3).keypoints[:, 2]

    assert nose("left")[-1, 0] - nose("left")[0, 0] < -15
    assert nose("right")[-1, 0] - nose("right")[0, 0] > 15
    assert np.ptp(nose("nods")[:, 1]) > 3
    video = clip(person(2), replace(SCENE, motion="closer"), 3)
    apart = np.linalg.norm(video.keypoints[:, 0] - video.keypoints[:, 1], axis=1)
    assert apart[-1] > 1.4 * apart[0]


@pytest.mark.parametrize("label", LABELS)
def test_every_label_changes_the_frames(label: str) -> None:
    """Any two values of a label give different frames."""
    seen = [clip(person(4), replace(SCENE, **{label: value}), 9).pixels.astype(int) for value in LABELS[label]]
    for one, other in combinations(seen, 2):
        assert np.abs(one - other).max() > 30


def test_held_out_scenes_are_one_in_eight_of_every_value() -> None:
    scenes = [Scene(*values) for values in product(*LABELS.values())]
    share = np.mean([each.held_out for each in scenes])
    assert 0.10 < share < 0.15
    for position, names in enumerate(LABELS.values()):
        for name in names:
            own = [each.held_out for each in scenes if list(each.labels().values())[position] == name]
            assert 0.05 < np.mean(own) < 0.2, name
    assert not scene(5, held_out=False).held_out and scene(5, held_out=True).held_out
    assert not any(scene(seed, held_out=False).held_out for seed in range(50))


def test_prompts_express_every_label() -> None:
    for seed in range(60):
        where = scene(seed)
        text = prompt(where, seed).lower()
        assert where.colour in text and where.garment in text
        for table, name in ((PLACES, where.place), (EXPRESSIONS, where.expression), (MOTIONS, where.motion),
                            (SPEECH, where.speech)):  # fmt: skip
            assert any(phrase in text for phrase in table[name])


def test_every_value_of_an_attribute_occurs() -> None:
    people = [person(HELD_OUT_PEOPLE + number).attributes() for number in range(400)]
    for name, values in ATTRIBUTES.items():
        counts = {value: sum(who[name] == value for who in people) for value in values}
        assert min(counts.values()) > 15, (name, counts)
