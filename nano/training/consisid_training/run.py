"""Trains everything, from nothing to a checkpoint and its judges: `python -m consisid_training.run FOLDER`; or, with
`--further CHECKPOINT`, a checkpoint's transformer and decoder with people whom it has not seen.

Every stage is a process of its own and goes on where it was stopped; what is finished is passed over. The judges come
before what they judge.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

PEOPLE = 36_000
"""Whose clips and portraits are drawn, and encoded for the transformer."""
OTHERS, FIRST = 16_000, 66_000
"""How many people training that goes on sees, and the number of the first of them: the shipped checkpoint has seen
most of those before."""
_MEMORY = {
    "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**34), "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}  # fmt: skip
"""glibc gives large tensors back to the system at once and asks for them again: a fifth of the time of `dit`."""


def stages(folder: Path, processes: int) -> list[list[str]]:
    """Modules and arguments, in order."""
    train, encoded = str(folder / "train"), str(folder / "encoded")

    def at(name: str) -> str:
        return str(folder / name)

    return [
        ["consisid_training.data.clips", train, "--people", str(PEOPLE)],
        ["consisid_training.faces.recogniser", train, at("judge_arcface"), "judge_arcface", "--steps", "700"],
        ["consisid_training.faces.recogniser", train, at("judge_curricular"), "judge_curricular", "--steps", "600"],
        ["consisid_training.judges.attributes", train, at("judge_person"), "person", "--steps", "500"],
        ["consisid_training.judges.attributes", train, at("judge_scene"), "scene", "--steps", "600"],
        ["consisid_training.judges.clip_judge", train, at("judge_clip"), "--steps", "800"],
        ["consisid_training.video.vae", train, str(folder), "--steps", "2200"],
        ["consisid_training.faces.recogniser", train, at("arcface"), "arcface", "--steps", "500"],
        ["consisid_training.faces.clip_tower", train, at("clip_tower"), "--steps", "500"],
        ["consisid_training.faces.detector", at("detector")],
        ["consisid_training.faces.aligner", at("aligner")],
        ["consisid_training.faces.parser", at("parser")],
        ["consisid_training.video.latents", train, str(folder), encoded, "video", "--people", str(PEOPLE)],
        ["consisid_training.video.latents", train, str(folder), encoded, "face", "--people", str(PEOPLE)],
        ["consisid_training.video.local", encoded, at("local"), "--steps", "800"],
        ["consisid_training.video.latents", train, str(folder), encoded, "tokens", "--people", str(PEOPLE)],
        ["consisid_training.video.latent_reader", encoded, at("looks"), "--people", str(PEOPLE)],
        [
            *_side_by_side(processes), "consisid_training.video.dit", train, encoded, str(folder), at("dit"),
            "--people", str(PEOPLE),
        ],
        ["consisid_training.video.decoder", train, str(folder)],
    ]  # fmt: skip


def further_stages(folder: Path, processes: int, checkpoint: Path, first: int = FIRST) -> list[list[str]]:
    """The same for training that goes on from a checkpoint, with people from number `first` on."""
    train, encoded = str(folder / "train"), str(folder / "encoded")
    latents, people = ["consisid_training.video.latents", train, str(folder), encoded], ["--people", str(OTHERS)]
    others = [*people, "--first", str(first)]
    return [
        ["consisid_training.further", "reopen", str(checkpoint), str(folder)],
        ["consisid_training.data.clips", train, *others],
        [*latents, "video", *people],
        [*latents, "tokens", *people],
        ["consisid_training.video.latent_reader", encoded, str(folder / "looks"), *others, "--steps", "1500"],
        [
            *_side_by_side(processes), "consisid_training.video.dit", train, encoded, str(folder),
            str(folder / "further"), "--further", str(folder / "start"), *others, "--steps", "6000", "--batch", "12",
            "--whole", "0.12", "--rate", "1e-3",
        ],
        ["consisid_training.video.decoder", train, str(folder)],
    ]  # fmt: skip


def _side_by_side(processes: int) -> list[str]:
    return ["torch.distributed.run", f"--nproc-per-node={processes}", "-m"] if processes > 1 else []


def run(folder: Path, processes: int, further: Path | None = None, first: int = FIRST) -> None:
    """Raises `SystemExit` for the stage that failed or was stopped; run again to go on there."""
    for arguments in (
        stages(folder, processes) if further is None else further_stages(folder, processes, further, first)
    ):
        print(" ".join(arguments), flush=True)
        _run(arguments)
    if further is not None:
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)
        places = [str(further), str(folder), str(folder / "encoded"), str(folder / "checkpoint")]
        _run(["consisid_training.further", "write", *places])
        return
    for kind in ("checkpoint", "judges"):
        shutil.rmtree(folder / kind, ignore_errors=True)
    encoded = [str(folder / "encoded")]
    for module, extra in (("checkpoint", encoded), ("judges", [])):
        made = [str(folder), *extra, str(folder / module)]
        _run([f"consisid_training.{module}", *made])


def _run(arguments: list[str]) -> None:
    """Ctrl-C is left to the stage, which saves and then fails."""
    command = [sys.executable, "-m", *arguments]
    previous = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        code = subprocess.Popen(command, env=_MEMORY | os.environ).wait()
    finally:
        signal.signal(signal.SIGINT, previous)
    if code:
        raise SystemExit(f"{arguments[0]} ended with {code}; the same command goes on there")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="gets data, states, logs, checkpoint/ and judges/: 50 GB")
    parser.add_argument("--processes", type=int, default=2, help="of the transformer's training, one core each")
    parser.add_argument("--further", type=Path, metavar="CHECKPOINT", help="go on from this one: 14 GB")
    parser.add_argument(
        "--first", type=int, default=FIRST, help="with --further: the number of the first person it sees"
    )
    arguments = parser.parse_args()
    if arguments.further is not None and arguments.further.resolve().is_relative_to(arguments.folder.resolve()):
        parser.error(f"{arguments.further} lies in {arguments.folder}, where its successor goes; take another folder")
    run(arguments.folder, arguments.processes, arguments.further, arguments.first)
