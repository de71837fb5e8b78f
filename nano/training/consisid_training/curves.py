"""Collects the logs of all training runs and plots them.

`python -m consisid_training.curves FOLDER nano/training/logs`
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

CURVES = {
    "judge_arcface": "hits", "judge_curricular": "hits", "judge_person": "freckles", "judge_scene": "expression",
    "judge_clip": "hits", "vae": "video_db", "decoder": "video_db", "arcface": "hits", "clip_tower": "places_error",
    "detector": "loss", "aligner": "loss", "parser": "loss", "local": "picture", "latent_reader": "beard",
    "dit": "error", "further": "unlike",
}  # fmt: skip
"""Name of a run → the plotted column of its log."""


def collect(folder: Path, out: Path) -> None:
    """Copy every run's log to `out`/<name>.jsonl and plot all logs there as `out`/curves.png.

    Logs of earlier runs, <name>-1.jsonl and so on, are plotted too.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    out.mkdir(parents=True, exist_ok=True)
    for name in CURVES:
        if (folder / name / "log.jsonl").exists():
            shutil.copyfile(folder / name / "log.jsonl", out / f"{name}.jsonl")
    found = [(name, file) for name in CURVES for file in sorted(out.glob(f"{name}*.jsonl"))]
    figure, axes = pyplot.subplots(-(-len(found) // 4), 4, figsize=(12, 2.4 * -(-len(found) // 4)), squeeze=False)
    for axis in axes.flat[len(found) :]:
        axis.axis("off")
    for axis, (name, file) in zip(axes.flat, found, strict=False):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        shown = [(line["step"], line[CURVES[name]]) for line in lines if CURVES[name] in line]
        axis.plot(*zip(*shown, strict=True), linewidth=0.8)
        axis.set_title(f"{file.stem}: {CURVES[name]}", fontsize=9)
        axis.tick_params(labelsize=7)
    figure.tight_layout()
    figure.savefig(out / "curves.png", dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    collect(arguments.folder, arguments.out)
