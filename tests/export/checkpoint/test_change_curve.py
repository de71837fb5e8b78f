"""A checkpoint's curve: measured on its own runs, stored in it, and in the bundles made of it."""

import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import jsonschema
import pytest
import torch

import consisid_nano
import consisid_runtime
from consisid_export.bundle.export import export_bundle
from consisid_export.change_curve import measure_curve
from consisid_export.checkpoint import change_curve
from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_runtime.bundle import Bundle
from consisid_runtime.errors import CheckpointInvalid
from consisid_runtime.options import Options
from consisid_runtime.pipeline import Pipeline
from consisid_runtime.stages import table
from consisid_runtime.tiers import Curve

CURVE = Curve((999, 500, 0), (0.0, 1.0, 1.5))


@pytest.fixture
def copy(untrained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(untrained, tmp_path / "checkpoint"))


def test_it_is_part_of_the_checkpoint(copy: Path) -> None:
    assert Checkpoint.open(copy).curve() is None
    path = change_curve.write(copy, CURVE)
    assert Checkpoint.open(copy).curve() == CURVE and path in Checkpoint.open(copy).files()


@pytest.mark.parametrize("content", ["{", "[]", '{"timesteps": [9, 0], "change": [0, NaN]}', '{"timesteps": [9]}'])
def test_a_malformed_one_is_named(copy: Path, content: str) -> None:
    (copy / change_curve.FILE).write_text(content)
    with pytest.raises(CheckpointInvalid, match=change_curve.FILE):
        Checkpoint.open(copy)


def test_a_bundle_has_the_tiers_that_skip_steps_with_a_curve_alone(copy: Path, tmp_path: Path) -> None:
    """A curve that comes, changes or goes makes another bundle."""
    out = tmp_path / "bundle"
    export_bundle(Checkpoint.open(copy), out, engine="torch")
    assert Bundle.open(out).tiers.names == ("exact",) and "curve" not in Bundle.open(out).manifest
    change_curve.write(copy, CURVE)
    assert export_bundle(Checkpoint.open(copy), out, engine="torch")
    found = Bundle.open(out)
    assert (found.tiers.names, found.tiers.curve) == (("exact", "fast", "draft"), CURVE)
    schema = json.loads((Path(consisid_runtime.__file__).parent / "manifest.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(found.manifest)
    assert not export_bundle(Checkpoint.open(copy), out, engine="torch")
    request = found.plan(Options(tier="fast", steps=4))
    assert found.tiers.timesteps(4) == [999, 749, 499, 249] and request.computed == (True, True, True, True)


def test_it_is_the_mean_change_of_the_clean_latents(trained_bundle_of: Callable[[str], Path]) -> None:
    """Of the example's calibration runs, without noise in between: those of a pipeline."""
    steps, checkpoint = 3, Checkpoint.open(consisid_nano.checkpoint())
    told: list[tuple[str, int, int]] = []
    found = measure_curve(checkpoint, lambda *now: told.append(now), steps=steps)
    pipeline, example = Pipeline.open(trained_bundle_of("torch"), device="cpu"), checkpoint.example()
    moved = torch.zeros(len(example.calibration), steps - 1)
    for run, (prompt, seed) in enumerate(example.calibration):
        request = pipeline.bundle.plan(Options(seed=seed, steps=steps, scheduler="ddim"))
        values: table.Values = {"image": example.portrait, "prompt": prompt}
        table.run(pipeline.stages, values, request, names=("face", "text", "encode"))
        denoiser = pipeline.stages["denoise"]
        conditions, latents, state, schedule = denoiser.start(
            values["text_states"], values["face_tokens"], values["image_moments"], request
        )
        clean = []
        for step in range(steps):
            latents, state = denoiser.run(conditions, latents, state, request, schedule, range(step, step + 1))
            clean.append(state.x0)
        moved[run] = torch.stack([(new - old).norm() / new.norm() for old, new in pairwise(clean)])
    assert found.timesteps == (999, 666, 332) and found.change[0] == 0
    assert found.change[1:] == pytest.approx(moved.mean(0).cumsum(0).tolist(), rel=1e-3)
    assert told[0] == ("run 1 of 3", 1, 3) and told[-1] == ("run 3 of 3", 3, 3)
