import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from consisid_fidelity.cli import SUITE, command, table
from consisid_fidelity.collection import read_collection
from consisid_fidelity.collection_writer import CollectionWriter
from consisid_fidelity.errors import CollectionInvalid
from consisid_fidelity.judges.judges import REQUIRED_FILES, Judges
from consisid_fidelity.metrics.distance import MAX_PSNR
from consisid_fidelity.score import Scores, score
from consisid_runtime.errors import CheckpointInvalid, NoFace, OutputUnwritable
from consisid_runtime.mp4 import Frames

EVERY_METRIC = set(REQUIRED_FILES) | {"flicker", "psnr", "ssim"}
NOBODY: Frames = np.full((4, 96, 96, 3), 90, np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, portrait_pixels: Frames, person_video: Frames) -> Path:
    """Two videos: one of a person, one of nobody."""
    out = tmp_path_factory.mktemp("fidelity") / "videos"
    writer = CollectionWriter(out)
    labels = {"colour": "blue", "end": "bright"}
    writer.add("person", person_video, portrait_pixels, "a person", fps=8, reference=person_video, labels=labels)
    writer.add("nobody", NOBODY, portrait_pixels, "a person smiles", fps=8, reference=person_video[:, ::-1])
    return out


@pytest.fixture(scope="module")
def scores(folder: Path, judge_folder: Path) -> Scores:
    return score(read_collection(folder), Judges.open(judge_folder, "cpu", threads=1))


def values(scores: Scores) -> tuple[dict[str, float | None], dict[str, float | None]]:
    (_, person), (_, nobody) = scores.videos
    return person, nobody


def test_every_metric_is_computed_or_has_a_reason(scores: Scores) -> None:
    assert set(scores.summary) | set(scores.not_computed) == EVERY_METRIC
    # Two portraits and three features.
    assert list(scores.not_computed) == ["fid"] and "2 samples of 3 features" in scores.not_computed["fid"]


def test_values_of_each_video(scores: Scores) -> None:
    person, nobody = values(scores)
    assert person["faces_found"] == 0.75 and nobody["faces_found"] == 0.0
    assert person["psnr"] == MAX_PSNR and person["ssim"] == pytest.approx(1) and person["clip_distance"] == 0.0
    assert nobody["psnr"] is not None and nobody["psnr"] < 20
    assert nobody["facesim_arc"] == nobody["facesim_cur"] == nobody["facesim_arc_published"] == 0.0
    assert nobody["flicker"] == 0.0 and nobody["identity_stability"] == 0.0 and nobody["face_distance"] is None
    arc, published = person["facesim_arc"], person["facesim_arc_published"]
    assert arc is not None and published is not None
    # ConsisID's mean is over the three frames with a face, ours over all four.
    assert arc == pytest.approx(0.75 * published, rel=1e-6) and 0 < published < 1
    assert arc != person["facesim_cur"]


def test_the_summary_is_the_mean_over_videos_that_have_a_value(scores: Scores) -> None:
    person, nobody = values(scores)
    assert scores.summary["faces_found"].mean == 0.375 and scores.summary["faces_found"].n == 2
    assert scores.summary["flicker"].mean == pytest.approx(((person["flicker"] or 0) + (nobody["flicker"] or 0)) / 2)
    assert scores.summary["face_distance"].n == 1 and scores.summary["face_distance"].low is None
    assert scores.summary["prompt_accuracy"].n == 1
    assert set(scores.accuracy) == {"colour", "end"}
    assert np.mean([each.mean for each in scores.accuracy.values()]) == scores.summary["prompt_accuracy"].mean
    assert "arcface.onnx" in scores.judges


def test_enough_portraits_have_a_frechet_distance(judge_folder: Path, tmp_path: Path, person_video: Frames) -> None:
    from consisid_export.onnx.sample_portrait import drawn_portrait

    writer = CollectionWriter(tmp_path / "videos")
    for seed in range(4):
        portrait = drawn_portrait(seed, 128, face=0.6, centre=(0.5, 0.5))
        writer.add(f"v{seed}", np.stack([portrait, portrait]), portrait, "a person", fps=8)
    found = score(read_collection(tmp_path / "videos"), Judges.open(judge_folder, "cpu", threads=1))
    person = found.videos[0][1]
    assert person["facesim_arc"] == pytest.approx(1, abs=1e-5) and person["face_distance"] == pytest.approx(0, abs=1e-9)
    # Each face occurs twice, so the means agree and the covariances differ by their n / (n − 1): 8/7 against 4/3.
    assert found.summary["fid"].n == 8 and found.summary["fid"].low is None
    assert 0 < found.summary["fid"].mean < 0.01
    assert "column `reference`" in found.not_computed["psnr"]
    assert "column for each attribute" in found.not_computed["prompt_accuracy"]
    assert "three frames" in found.not_computed["flicker"]


def test_fewer_frames_are_judged_where_asked(folder: Path, judge_folder: Path) -> None:
    found = score(read_collection(folder)[:1], Judges.open(judge_folder, "cpu", threads=1), frames=2)
    # The first and the last frame; the last shows nobody.
    assert found.videos[0][1]["faces_found"] == 0.5
    assert found.summary["faces_found"].low is None and found.summary["faces_found"].n == 1


def test_missing_judges_disable_only_their_metrics(folder: Path, judge_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "judges").mkdir()
    shutil.copytree(judge_folder / "clip", tmp_path / "judges" / "clip")
    found = score(read_collection(folder), Judges.open(tmp_path / "judges", "cpu", threads=1))
    assert set(found.summary) == {"flicker", "psnr", "ssim", "clip_score", "clip_distance"}
    assert set(found.summary) | set(found.not_computed) == EVERY_METRIC
    assert "arcface.onnx" in found.not_computed["facesim_arc"] and found.accuracy == {}


def test_progress_names_each_video(folder: Path, judge_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "judges").mkdir()
    shutil.copy(judge_folder / "detector.onnx", tmp_path / "judges")
    seen: list[tuple[str, int, int]] = []
    judges = Judges.open(tmp_path / "judges", "cpu", threads=1)
    score(read_collection(folder), judges, progress=lambda *what: seen.append(what))
    assert seen == [("person.mkv", 0, 2), ("nobody.mkv", 1, 2)]


def collection(folder: Path, frames: Frames, portrait: Frames, **more: object) -> Path:
    writer = CollectionWriter(folder)
    writer.add("one", frames, portrait, "a person", fps=8, **more)  # type: ignore[arg-type]
    return folder


def test_requests_that_cannot_be_scored_name_the_row(
    tmp_path: Path, judge_folder: Path, person_video: Frames, portrait_pixels: Frames
) -> None:
    judges = Judges.open(judge_folder, "cpu", threads=1)
    bad = collection(tmp_path / "a", person_video, portrait_pixels, reference=person_video[:3])
    with pytest.raises(CollectionInvalid, match=r"row 1 \(one\.mkv\): the video and its reference cannot be compared"):
        score(read_collection(bad), judges)
    bad = collection(tmp_path / "b", person_video, NOBODY[0])
    with pytest.raises(NoFace, match=r"row 1 \(one\.mkv\): portrait one\.png shows no face"):
        score(read_collection(bad), judges)
    bad = collection(tmp_path / "c", person_video, portrait_pixels, labels={"colour": "pink"})
    with pytest.raises(CollectionInvalid, match=r"row 1 \(one\.mkv\): colour is 'pink'"):
        score(read_collection(bad), judges)
    bad = collection(tmp_path / "d", person_video[:3], portrait_pixels, labels={"colour": "red"})
    with pytest.raises(CollectionInvalid, match=r"row 1 \(one\.mkv\): prompt accuracy needs 4 frames"):
        score(read_collection(bad), judges)


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command(SUITE)(command)
    return app


def test_the_command_prints_a_table_and_writes_everything(
    app: typer.Typer, folder: Path, judge_folder: Path, scores: Scores, tmp_path: Path
) -> None:
    out = tmp_path / "scores.json"
    arguments = [str(folder), "--judges", str(judge_folder), "--device", "cpu", "--out", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert done.stdout.rstrip() == table(scores)
    written = json.loads(out.read_bytes())
    assert {"frames": None} | json.loads(json.dumps(scores.to_json())) == written
    assert [video["video"] for video in written["videos"]] == ["person.mkv", "nobody.mkv"]


def test_the_table_has_a_line_for_every_metric(scores: Scores) -> None:
    lines = table(scores).splitlines()
    assert all(any(line.startswith(name) for line in lines) for name in EVERY_METRIC)
    (faces,) = (line.split() for line in lines if line.startswith("faces_found"))
    # Student's interval of 0.75 and 0 is 0.375 ± 12.706 · 0.375, clamped to the range of a share.
    assert faces == ["faces_found", "0.375", "0", "to", "1", "2"]
    (fid,) = (line for line in lines if line.startswith("fid"))
    assert fid == ("fid: not computed, 2 samples of 3 features; more samples than features are needed on each side")


def test_the_command_prints_json_alone(app: typer.Typer, folder: Path, judge_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "judges").mkdir()
    shutil.copy(judge_folder / "detector.onnx", tmp_path / "judges")
    done = CliRunner().invoke(app, [str(folder), "--judges", str(tmp_path / "judges"), "--frames", "2", "--json"])
    assert json.loads(done.stdout)["frames"] == 2


def test_the_command_refuses_bad_arguments_before_any_work(
    app: typer.Typer, folder: Path, judge_folder: Path, tmp_path: Path
) -> None:
    invoke = CliRunner().invoke
    wrong = [
        ([str(tmp_path), "--judges", str(judge_folder)], CollectionInvalid),
        ([str(folder), "--judges", str(tmp_path)], CheckpointInvalid),
        ([str(folder), "--judges", str(judge_folder), "--out", str(tmp_path / "no" / "x.json")], OutputUnwritable),
    ]
    for arguments, kind in wrong:
        assert isinstance(invoke(app, arguments).exception, kind)
    assert invoke(app, [str(folder), "--judges", str(judge_folder), "--frames", "0"]).exit_code == 2
    assert invoke(app, [str(folder)]).exit_code == 2
