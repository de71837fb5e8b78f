"""Data of another training set is refused, and incomplete data is encoded again."""

from pathlib import Path

import numpy as np
import pytest

from consisid_training.data import clips
from consisid_training.video import latents


def test_a_folder_of_other_people_is_refused(tmp_path: Path) -> None:
    clips.draw(tmp_path, 1, first=3)
    drawn = np.load(tmp_path / "clips.npy")
    clips.draw(tmp_path, 1, first=3)
    for people, first in ((1, 4), (2, 3)):
        with pytest.raises(FileExistsError, match="choose another folder"):
            clips.draw(tmp_path, people, first=first)
    assert np.array_equal(np.load(tmp_path / "clips.npy"), drawn)


def test_a_part_that_lacks_an_array_is_encoded_again(tmp_path: Path) -> None:
    np.save(tmp_path / "clips.npy", np.zeros((0, 17, 64, 96, 3), np.uint8))
    mark = tmp_path / "tokens-blocks" / "0"
    latents.encode(tmp_path, tmp_path, tmp_path, "tokens", 0, processes=1)
    mark.touch()
    latents.encode(tmp_path, tmp_path, tmp_path, "tokens", 0, processes=1)
    assert mark.exists()
    (tmp_path / "faces.npy").unlink()
    latents.encode(tmp_path, tmp_path, tmp_path, "tokens", 0, processes=1)
    assert not mark.exists()
