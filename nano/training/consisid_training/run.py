"""Executes all training runs and writes the checkpoint and its judges: `python -m consisid_training.run FOLDER`.

With `--further CHECKPOINT` it trains that checkpoint's transformer and decoder further, on people that are new to it.
Each run is a process. It resumes where it was stopped, and a finished one ends at once. The judges are trained first.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from consisid_runtime.errors import OutputUnwritable
from consisid_runtime.files.atomic import write_file
from consisid_runtime.files.ownership import content_digests

PEOPLE = 36_000
"""Number of people in the training set."""
OTHERS, FIRST = 16_000, 66_000
"""Number of people in further training, and the first of them; nano was trained on most of those before."""
_MEMORY = {
    "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**34), "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}  # fmt: skip
"""Keeps glibc from returning large tensors to the system and requesting them again, a fifth of the time of `dit`."""


def commands(folder: Path, processes: int) -> list[list[str]]:
    """Return module and arguments of every command, in order."""
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
        ["consisid_training.video.latent_reader", encoded, at("latent_reader"), "--people", str(PEOPLE)],
        [
            *_distributed(processes), "consisid_training.video.dit", train, encoded, str(folder), at("dit"),
            "--people", str(PEOPLE),
        ],
        ["consisid_training.video.decoder", train, str(folder)],
        ["consisid_training.checkpoint", str(folder), encoded, at("checkpoint")],
        ["consisid_training.judges.write", str(folder), at("judges")],
    ]  # fmt: skip


def further_commands(folder: Path, processes: int, checkpoint: Path, first: int = FIRST) -> list[list[str]]:
    """Return the commands of further training, on people from number `first` on."""
    train, encoded = str(folder / "train"), str(folder / "encoded")
    latents, people = ["consisid_training.video.latents", train, str(folder), encoded], ["--people", str(OTHERS)]
    others = [*people, "--first", str(first)]
    return [
        ["consisid_training.further", "reopen", str(checkpoint), str(folder)],
        ["consisid_training.data.clips", train, *others],
        [*latents, "video", *people],
        [*latents, "tokens", *people],
        ["consisid_training.video.latent_reader", encoded, str(folder / "latent_reader"), *others, "--steps", "1500"],
        [
            *_distributed(processes), "consisid_training.video.dit", train, encoded, str(folder),
            str(folder / "further"), "--further", str(folder / "start"), *others, "--steps", "6000", "--batch", "12",
            "--whole", "0.12", "--rate", "1e-3",
        ],
        ["consisid_training.video.decoder", train, str(folder)],
        ["consisid_training.further", "write", str(checkpoint), str(folder), encoded, str(folder / "checkpoint")],
    ]  # fmt: skip


def _distributed(processes: int) -> list[str]:
    return ["torch.distributed.run", f"--nproc-per-node={processes}", "-m"] if processes > 1 else []


def run(folder: Path, processes: int, further: Path | None = None, first: int = FIRST) -> None:
    """Execute all commands; the written folders replace those of an earlier call, and no others.

    Raises `OutputUnwritable` for a folder `checkpoint` or `judges` with other content, and `SystemExit`
    when a command fails or is stopped. The same call resumes there.
    """
    outputs = {str(folder / name): folder / name for name in ("checkpoint", "judges")}
    for out in outputs.values():
        _require_ours(out)
    for arguments in (
        commands(folder, processes) if further is None else further_commands(folder, processes, further, first)
    ):
        print(" ".join(arguments), flush=True)
        if arguments[-1] not in outputs:
            _run(arguments)
            continue
        out = outputs[arguments[-1]]
        fresh = out.with_name(f".consisid-{out.name}.part")
        shutil.rmtree(fresh, ignore_errors=True)
        _run([*arguments[:-1], str(fresh)])
        _require_ours(out)
        shutil.rmtree(out, ignore_errors=True)
        fresh.rename(out)
        write_file(_record(out), json.dumps(content_digests(out)).encode())


def _record(out: Path) -> Path:
    """The file beside a written folder that lists its files: the folder itself holds what a checkpoint consists of."""
    return out.with_name(f"{out.name}-written.json")


def _require_ours(out: Path) -> None:
    try:
        if not out.exists() or content_digests(out) == json.loads(_record(out).read_bytes()):
            return
    except (OSError, ValueError):
        pass
    raise OutputUnwritable(f"{out} differs from what an earlier run wrote there; move it elsewhere")


def _run(arguments: list[str]) -> None:
    """Run a module as a process. Ctrl-C is handled by that process, which saves its state and fails."""
    command = [sys.executable, "-m", *arguments]
    previous = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        code = subprocess.Popen(command, env=_MEMORY | os.environ).wait()
    finally:
        signal.signal(signal.SIGINT, previous)
    if code:
        raise SystemExit(f"{arguments[0]} exited with {code}; the same command resumes there")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder for data, states, logs, checkpoint/ and judges/: 50 GB")
    parser.add_argument(
        "--processes", type=int, default=2, help="processes of the transformer's training, one core each"
    )
    parser.add_argument("--further", type=Path, metavar="CHECKPOINT", help="train this one further: 14 GB")
    parser.add_argument(
        "--first", type=int, default=FIRST, help="with --further: number of the first person of the training set"
    )
    arguments = parser.parse_args()
    if arguments.further is not None and arguments.further.resolve().is_relative_to(arguments.folder.resolve()):
        parser.error(f"{arguments.further} is inside {arguments.folder}, which is written to; choose another folder")
    run(arguments.folder, arguments.processes, arguments.further, arguments.first)
