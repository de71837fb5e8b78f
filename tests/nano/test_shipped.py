"""The trained data in this tree is complete and unchanged, and contains no paths of the machine that made it."""

import pytest

import consisid_nano
from consisid_export.change_curve import measure_curve
from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_nano import digests, package
from consisid_nano.marker import MARKER


@pytest.mark.parametrize("folder", ["checkpoint", "judges"])
def test_every_file_has_its_recorded_digest(folder: str) -> None:
    assert digests.verified(folder)


def test_the_checkpoint_is_complete_and_names_its_world() -> None:
    example = Checkpoint.open(consisid_nano.checkpoint()).example()
    assert example.world == "drawn people; photographs are outside of it"
    assert example.held_out[0] not in {prompt for prompt, _ in example.calibration}
    assert not (consisid_nano.checkpoint() / MARKER).exists()


@pytest.mark.proof
def test_the_curve_is_the_checkpoints() -> None:
    """A checkpoint that is trained further needs another: `consisid curve`."""
    checkpoint = Checkpoint.open(consisid_nano.checkpoint())
    shipped, measured = checkpoint.curve(), measure_curve(checkpoint)
    assert shipped is not None and shipped.timesteps == measured.timesteps
    assert shipped.change == pytest.approx(measured.change, rel=0.01)


def test_no_file_contains_paths_of_its_exporter() -> None:
    files = [file for folder in package.DATA for file in (package.PACKAGE / folder).rglob("*") if file.is_file()]
    for file in files:
        content = file.read_bytes()
        assert b"site-packages" not in content and b"consisid_training" not in content, file
