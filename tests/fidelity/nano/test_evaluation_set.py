import io

import numpy as np
import pytest
from PIL import Image

from consisid_fidelity.nano.evaluation_set import GALLERY_SIZE, Case, case, cases, png
from consisid_nano.world import HELD_OUT_PEOPLE
from consisid_runtime.plan import Geometry

SMALL = Geometry(frames=9, height=48, width=64, spatial=4, temporal=4, patch=2, fixed_size=True)


@pytest.fixture(scope="module")
def everybody() -> list[Case]:
    return cases(GALLERY_SIZE)


def test_everything_is_held_out_and_all_people_differ(everybody: list[Case]) -> None:
    assert len({one.person.seed for one in everybody}) == len({one.name for one in everybody}) == GALLERY_SIZE
    assert min(one.person.seed for one in everybody) >= HELD_OUT_PEOPLE
    assert all(one.scene.held_out for one in everybody)
    assert len({one.seed for one in everybody}) == GALLERY_SIZE


def test_every_attribute_varies(everybody: list[Case]) -> None:
    for name in everybody[0].scene.labels():
        assert len({one.scene.labels()[name] for one in everybody}) > 1


def test_a_smaller_set_is_a_prefix_of_a_larger_one(everybody: list[Case]) -> None:
    assert cases(7) == everybody[:7] and case(3) == everybody[3]


def test_pictures_of_a_case(everybody: list[Case]) -> None:
    one = everybody[0]
    first, other = one.portrait(), one.other_portrait()
    assert first.shape == other.shape == (512, 512, 3) and not np.array_equal(first, other)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(first)))), first)
    assert one.drawn(SMALL).shape == (9, 48, 64, 3)


def test_a_donor_is_another_person(everybody: list[Case]) -> None:
    assert all(one.donor().person.seed != one.person.seed for one in everybody)
    assert everybody[-1].donor().number == GALLERY_SIZE
