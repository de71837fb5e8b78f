"""A checkpoint that knows another world than that of photographs brings what it can be run on."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from consisid_export.bundle.export import export_bundle
from consisid_export.checkpoint import example
from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_runtime.bundle import Bundle
from consisid_runtime.errors import CheckpointInvalid, NoFace
from consisid_runtime.files.ownership import sha256
from consisid_runtime.pipeline import Pipeline

OWN: dict[str, Any] = {
    "world": "drawn cats; dogs are outside of it",
    "licence": "CC0-1.0",
    "portrait": "example.png",
    "calibration": [["A cat sleeps.", 1], ["A cat runs.", 2], ["A cat sings.", 3]],
    "held_out": ["A cat smiles.", 4],
}


@pytest.fixture
def copy(untrained: Path, tmp_path: Path, portrait: bytes) -> Path:
    """A checkpoint with an example of its own."""
    folder = Path(shutil.copytree(untrained, tmp_path / "checkpoint"))
    (folder / "example.png").write_bytes(portrait)
    (folder / example.FILE).write_text(json.dumps(OWN))
    return folder


def test_without_one_a_photograph_and_prompts_of_people_are_used(untrained: Path) -> None:
    found = Checkpoint.open(untrained).example()
    assert found.world is None and len(found.calibration) == 3
    assert found.portrait == example.photograph()
    assert not {*found.held_out} & {part for run in found.calibration for part in run}


def test_its_own_is_read_and_counts_as_part_of_the_checkpoint(copy: Path, portrait: bytes) -> None:
    checkpoint = Checkpoint.open(copy)
    assert checkpoint.example() == example.Example(
        portrait=portrait,
        calibration=(("A cat sleeps.", 1), ("A cat runs.", 2), ("A cat sings.", 3)),
        held_out=("A cat smiles.", 4),
        world="drawn cats; dogs are outside of it",
        licence="CC0-1.0",
    )
    assert {copy / example.FILE, copy / "example.png"} <= set(checkpoint.files())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"world": ""}, 'world: expected a line of text, got ""'),
        ({"licence": None}, "licence: expected a line of text, got null"),
        ({"world": "two\nlines"}, "world: expected a line of text"),
        ({"portrait": "absent.png"}, r"portrait: absent\.png is missing"),
        ({"portrait": "../outside.png"}, "portrait: expected the path of an image inside the checkpoint"),
        ({"calibration": []}, r"calibration: expected a list of \[prompt, seed\], got \[\]"),
        (
            {"calibration": [["A cat.", 1], ["A cat."]]},
            r'calibration\[1\]: expected \[prompt, seed\], got \["A cat\."\]',
        ),
        ({"calibration": [["A cat.", True]]}, r"calibration\[0\]: expected"),
        ({"calibration": [[" ", 1]]}, r"calibration\[0\]: expected"),
        ({"held_out": ["A cat.", -1]}, "held_out: expected"),
        ({"held_out": ["A cat runs.", 2]}, "held_out: expected a run that is not in calibration"),
        ({"held_in": 1}, "expected the entries world, licence, portrait, calibration, held_out, found .*'held_in'"),
    ],
    ids=str,
)
def test_an_entry_that_cannot_be_meant_is_named(copy: Path, change: dict[str, Any], message: str) -> None:
    (copy.parent / "outside.png").write_text("x")
    (copy / example.FILE).write_text(json.dumps(OWN | change))
    with pytest.raises(CheckpointInvalid, match=rf"example\.json: {message}"):
        Checkpoint.open(copy)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"world": "x"}'])
def test_a_file_that_is_no_example_is_refused(copy: Path, content: str) -> None:
    (copy / example.FILE).write_text(content)
    with pytest.raises(CheckpointInvalid, match=r"example\.json: (not JSON|expected the entries)"):
        Checkpoint.open(copy)


def test_the_bundle_says_its_world_and_another_example_makes_another_bundle(copy: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    assert export_bundle(Checkpoint.open(copy), out, engine="torch")
    bundle = Bundle.open(out)
    assert bundle.world == OWN["world"] == bundle.manifest["world"]
    assert {licence["licence"] for licence in bundle.manifest["licences"].values()} == {OWN["licence"]}
    assert bundle.manifest["checkpoint"]["example.png"] == sha256(copy / "example.png")
    with pytest.raises(NoFace, match="this checkpoint knows drawn cats; dogs are outside of it: use a picture"):
        Pipeline.open(out, device="cpu").generate(blank(), "A cat.")
    assert not export_bundle(Checkpoint.open(copy), out, engine="torch")
    (copy / example.FILE).write_text(json.dumps(OWN | {"world": "drawn dogs"}))
    assert export_bundle(Checkpoint.open(copy), out, engine="torch")
    assert Bundle.open(out).world == "drawn dogs"


def test_a_bundle_of_photographs_says_none(torch_bundle_of: Callable[..., Path]) -> None:
    bundle = Bundle.open(torch_bundle_of())
    assert bundle.world is None and "world" not in bundle.manifest


def blank() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (256, 256), "white").save(out, "PNG")
    return out.getvalue()
