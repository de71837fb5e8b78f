"""Collects the logs of all stages and draws them: `python -m consisid_training.curves FOLDER nano/training/logs`."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

CURVES = {
    "judge_arcface": "hits", "judge_curricular": "hits", "judge_person": "freckles", "judge_scene": "expression",
    "judge_clip": "hits", "vae": "video_db", "decoder": "video_db", "arcface": "hits", "clip_tower": "places_error",
    "detector": "loss", "aligner": "loss", "parser": "loss", "local": "picture", "looks": "beard",
    "dit": "error", "further": "unlike",
}  # fmt: skip
"""Stage → the column of its log that says most."""


def collect(folder: Path, out: Path) -> None:
    """Copy every stage's log to `out`/<stage>.jsonl, and draw `out`/curves.png from all there: of earlier rounds too,
    which are called <stage>-1.jsonl and so on."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    out.mkdir(parents=True, exist_ok=True)
    for stage in CURVES:
        if (folder / stage / "log.jsonl").exists():
            shutil.copyfile(folder / stage / "log.jsonl", out / f"{stage}.jsonl")
    found = [(stage, file) for stage in CURVES for file in sorted(out.glob(f"{stage}*.jsonl"))]
    figure, axes = pyplot.subplots(-(-len(found) // 4), 4, figsize=(12, 2.4 * -(-len(found) // 4)), squeeze=False)
    for axis in axes.flat[len(found) :]:
        axis.axis("off")
    for axis, (stage, file) in zip(axes.flat, found, strict=False):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        shown = [(line["step"], line[CURVES[stage]]) for line in lines if CURVES[stage] in line]
        axis.plot(*zip(*shown, strict=True), linewidth=0.8)
        axis.set_title(f"{file.stem}: {CURVES[stage]}", fontsize=9)
        axis.tick_params(labelsize=7)
    figure.tight_layout()
    figure.savefig(out / "curves.png", dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    collect(arguments.folder, arguments.out)
