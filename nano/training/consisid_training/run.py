"""Trains everything, from nothing to a checkpoint and its judges: `python -m consisid_training.run FOLDER`.

Every stage is a process of its own and goes on where it was stopped; what is finished is passed over. The judges come
before what they judge.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
from pathlib import Path

PEOPLE = 36_000
"""Whose clips and portraits are drawn, and encoded for the transformer."""


def stages(folder: Path, processes: int) -> list[list[str]]:
    """Modules and arguments, in order."""
    train, encoded = str(folder / "train"), str(folder / "encoded")

    def at(name: str) -> str:
        return str(folder / name)

    dit = ["torch.distributed.run", f"--nproc-per-node={processes}", "-m"] if processes > 1 else []
    return [
        ["consisid_training.data", train, "--people", str(PEOPLE)],
        ["consisid_training.recogniser", train, at("judge_arcface"), "judge_arcface", "--steps", "700"],
        ["consisid_training.recogniser", train, at("judge_curricular"), "judge_curricular", "--steps", "600"],
        ["consisid_training.attributes", train, at("judge_person"), "person", "--steps", "500"],
        ["consisid_training.attributes", train, at("judge_scene"), "scene", "--steps", "600"],
        ["consisid_training.clip_judge", train, at("judge_clip"), "--steps", "800"],
        ["consisid_training.vae", train, str(folder), "vae", "--steps", "2200"],
        ["consisid_training.recogniser", train, at("arcface"), "arcface", "--steps", "500"],
        ["consisid_training.clip_tower", train, at("clip_tower"), "--steps", "500"],
        ["consisid_training.detector", at("detector")],
        ["consisid_training.aligner", at("aligner")],
        ["consisid_training.parser", at("parser")],
        ["consisid_training.latents", train, str(folder), encoded, "video", "--people", str(PEOPLE)],
        ["consisid_training.latents", train, str(folder), encoded, "face", "--people", str(PEOPLE)],
        ["consisid_training.local", encoded, at("local"), "--steps", "800"],
        [*dit, "consisid_training.dit", train, encoded, at("local"), at("dit"), "--people", str(PEOPLE)],
        ["consisid_training.vae", train, str(folder), "decoder", "--steps", "1000"],
    ]


def run(folder: Path, processes: int) -> None:
    """Raises `SystemExit` for the stage that failed or was stopped; run again to go on there."""
    for arguments in stages(folder, processes):
        print(" ".join(arguments), flush=True)
        _run(arguments)
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
        code = subprocess.Popen(command).wait()
    finally:
        signal.signal(signal.SIGINT, previous)
    if code:
        raise SystemExit(f"{arguments[0]} ended with {code}; the same command goes on there")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="gets data, states, logs, checkpoint/ and judges/: 50 GB")
    parser.add_argument("--processes", type=int, default=2, help="of the transformer's training, one core each")
    arguments = parser.parse_args()
    run(arguments.folder, arguments.processes)
