"""The selection of tiles."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from consisid_kernels import launch


@pytest.mark.parametrize(
    ("architecture", "family"),
    [
        *[(80, 80), (86, 80), (87, 80), (89, 89), (90, 90), (100, 100), (103, 100), (120, 120), (121, 120)],
        *[(75, None), (110, None), (None, None)],
    ],
)
def test_the_family_is_the_closest_architecture_below(architecture: int | None, family: int | None) -> None:
    assert launch.family(architecture) == family


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    tiles = {"default": {"a": {"x": 0}, "b": {"x": 1}}, "100": {"a": {"x": 2}}, "103": {"b": {"x": 3}}}
    (tmp_path / "some.json").write_text(json.dumps(tiles))
    monkeypatch.setattr(launch, "TILES", tmp_path)
    launch.tile.cache_clear()
    yield
    launch.tile.cache_clear()


@pytest.mark.parametrize(
    ("case", "architecture", "tile"),
    [("a", 100, 2), ("a", 103, 2), ("b", 100, 1), ("b", 103, 3), ("a", 120, 0), ("a", None, 0)],
)
@pytest.mark.usefixtures("tables")
def test_a_tile_is_the_most_specific_one(case: str, architecture: int | None, tile: int) -> None:
    assert launch.tile("some", case, architecture) == {"x": tile}
