"""Exports killed, disks filled, bytes flipped, for real: nothing of it ever opens as a valid bundle."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from consisid_runtime.bundle import MANIFEST, Bundle
from consisid_runtime.errors import BundleCorrupt, BundleMissing

TRIALS = 10
MEBIBYTE = 2**20

pytestmark = pytest.mark.proof


def start(checkpoint: Path, out: Path) -> subprocess.Popen[str]:
    arguments = ["export", str(checkpoint), "--out", str(out), "--json"]
    command = [sys.executable, "-c", "from consisid_runtime.cli.main import main; main()", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(checkpoint: Path, out: Path) -> tuple[int, str, float]:
    """Exit code, what was printed, seconds of processor time: those of the clock depend on what else runs here."""
    before = os.times()
    process = start(checkpoint, out)
    printed = "".join(process.communicate())
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return process.returncode, printed, used


def used_by(process: subprocess.Popen[str]) -> float:
    """Seconds of processor time that a running process has taken."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def graphs(folder: Path) -> dict[str, int]:
    """Module → inode of its graph, for modules with a record where there are records."""
    records = folder.parent / "records"
    names = {path.stem for path in records.glob("*.json")} if records.is_dir() else None
    return {path.stem: path.stat().st_ino for path in folder.glob("*.onnx") if names is None or path.stem in names}


@pytest.fixture(scope="module")
def whole(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """An uninterrupted export and its seconds of processor time."""
    out = tmp_path_factory.mktemp("whole") / "bundle"
    status, printed, seconds = finish(untrained, out)
    assert status == 0, printed
    return out, seconds


@pytest.mark.parametrize("trial", range(TRIALS))
def test_a_kill_at_a_random_moment_leaves_no_bundle_and_the_next_run_finishes_it(
    untrained: Path, whole: tuple[Path, float], tmp_path: Path, proof: Callable[[str], Any], trial: int
) -> None:
    record = proof("export-killed")
    if str(trial) in record.trials:
        return
    reference, seconds = whole
    out, partial = tmp_path / "bundle", tmp_path / ".bundle.partial"
    moment = seconds * (trial + random.Random(trial).random()) / TRIALS
    process = start(untrained, out)
    while process.poll() is None:
        if used_by(process) >= moment:
            process.kill()
            break
        time.sleep(0.01)
    process.communicate()
    killed = process.returncode == -signal.SIGKILL
    kept: dict[str, int] = {}
    if not out.exists():
        for folder in (out, partial / "bundle"):
            with pytest.raises((BundleMissing, BundleCorrupt)):
                Bundle.open(folder)
        kept = graphs(partial / "bundle")
    status, printed, again = finish(untrained, out)
    assert status == 0, printed
    assert graphs(out).items() >= kept.items(), "finished modules were written again"
    Bundle.open(out).verify()
    assert contents(out) == contents(reference)
    assert os.listdir(tmp_path) == ["bundle"]
    record.record(
        str(trial),
        killed=killed,
        after_processor_seconds=round(moment, 2),
        whole_export_processor_seconds=round(seconds, 2),
        modules_kept=sorted(kept),
        second_run_processor_seconds=round(again, 2),
        equals_uninterrupted_export=True,
    )


def test_kills_hit_every_part_of_the_export(proof: Callable[[str], Any]) -> None:
    trials = proof("export-killed").trials.values()
    assert len(trials) == TRIALS
    assert sum(trial["killed"] for trial in trials) >= TRIALS - 1
    assert len({len(trial["modules_kept"]) for trial in trials}) >= 4


def test_every_flipped_bit_is_found(whole: tuple[Path, float], tmp_path: Path, proof: Callable[[str], Any]) -> None:
    copy = Path(shutil.copytree(whole[0], tmp_path / "bundle"))
    record = proof("bundle-flipped")
    files = sorted(contents(copy))
    for trial in range(TRIALS):
        chance = random.Random(trial)
        # Every other time the manifest or any small file has the same chance as the weights.
        sizes = [(copy / name).stat().st_size if trial % 2 else 1 for name in files]
        name = chance.choices(files, sizes)[0]
        content = (copy / name).read_bytes()
        offset, bit = chance.randrange(len(content)), chance.randrange(8)
        damaged = bytearray(content)
        damaged[offset] ^= 1 << bit
        (copy / name).write_bytes(damaged)
        with pytest.raises(BundleCorrupt) as error:
            Bundle.open(copy).verify()
        assert name in str(error.value)
        (copy / name).write_bytes(content)
        record.record(str(trial), file=name, offset=offset, bit=bit, refused_with=error.value.code)
    Bundle.open(copy).verify()


@pytest.mark.parametrize("room", [1, 4, 14, 17])
def test_a_full_disk_leaves_no_bundle_and_more_room_finishes_it(
    untrained: Path,
    whole: tuple[Path, float],
    small_disk: Callable[[int], Path],
    proof: Callable[[str], Any],
    room: int,
) -> None:
    record = proof("export-disk-full")
    disk = small_disk(room * MEBIBYTE)
    if str(room) in record.trials:
        return
    out = disk / "bundle"
    status, printed, _ = finish(untrained, out)
    assert (status, out.exists()) == (5, False), printed
    assert "OUTPUT_UNWRITABLE" in printed and "No space left on device" in printed
    kept = graphs(disk / ".bundle.partial" / "bundle")
    assert ("finished parts are kept" in printed) == bool(kept)
    small_disk(64 * MEBIBYTE)
    status, printed, _ = finish(untrained, out)
    assert status == 0, printed
    assert graphs(out).items() >= kept.items(), "finished modules were written again"
    Bundle.open(out).verify()
    assert contents(out) == contents(whole[0])
    assert os.listdir(disk) == ["bundle"] and (out / MANIFEST).is_file()
    record.record(str(room), room_mebibytes=room, modules_kept=sorted(kept), equals_uninterrupted_export=True)
