"""Videos are generated from a table of requests, and an interrupted run is resumed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from consisid_fidelity.collection import read_collection
from consisid_fidelity.errors import CollectionInvalid
from consisid_fidelity.videos import generate_videos, read_requests
from consisid_runtime.errors import NoFace
from consisid_runtime.options import Options


class FakePipeline:
    """A pipeline whose frames are filled with the seed; the prompt "nobody" raises `NoFace`."""

    def __init__(self, fingerprint: str = "f" * 64) -> None:
        self.bundle = SimpleNamespace(fingerprint=fingerprint)
        self.seeds: list[int] = []

    def generate(self, image: bytes, prompt: str, options: Options) -> Any:
        if prompt == "nobody":
            raise NoFace("no face in the picture")
        self.seeds.append(options.seed)
        return SimpleNamespace(frames=np.full((3, 16, 24, 3), options.seed, np.uint8), fps=8)


def fail_at_once(*_: object) -> None:
    raise RuntimeError


@pytest.fixture
def table(tmp_path: Path) -> Path:
    Image.new("RGB", (80, 80), "red").save(tmp_path / "a.png")
    path = tmp_path / "requests.csv"
    path.write_text("portrait,prompt,seed,colour\na.png,a person smiles,,red\na.png,a person nods,40,\n")
    return path


def test_rows_become_a_folder_that_can_be_scored(table: Path, tmp_path: Path) -> None:
    pipeline: Any = FakePipeline()
    assert generate_videos(pipeline, read_requests(table), Options(steps=5), tmp_path / "videos") == 2
    one, two = read_collection(tmp_path / "videos")
    assert (one.name, one.prompt, one.labels) == ("000001.mkv", "a person smiles", {"colour": "red"})
    assert two.labels == {} and pipeline.seeds == [1, 40]
    assert two.frames().shape == (3, 16, 24, 3) and (two.frames() == 40).all()
    assert one.portrait_pixels().shape == (80, 80, 3)


def test_an_interrupted_run_is_resumed(table: Path, tmp_path: Path) -> None:
    with table.open("a") as file:
        file.write("a.png,nobody,,\n")
    broken: Any = FakePipeline()
    broken.generate = fail_at_once
    with pytest.raises(RuntimeError):
        generate_videos(broken, read_requests(table), Options(), tmp_path / "videos")
    (tmp_path / "videos" / "000001.mkv").write_bytes(b"truncated")
    broken = FakePipeline()
    with pytest.raises(NoFace, match=r"row 3 \(a\.png\): no face in the picture"):
        generate_videos(broken, read_requests(table), Options(), tmp_path / "videos")
    table.write_text(table.read_text().replace("nobody", "a person turns"))
    pipeline: Any = FakePipeline()
    assert generate_videos(pipeline, read_requests(table), Options(), tmp_path / "videos") == 1
    assert pipeline.seeds == [3] and len(read_collection(tmp_path / "videos")) == 3


@pytest.mark.parametrize(
    ("pipeline", "options"), [(FakePipeline("0" * 64), Options()), (FakePipeline(), Options(steps=7))]
)
def test_a_folder_of_another_bundle_or_other_options_is_refused(
    pipeline: Any, options: Options, table: Path, tmp_path: Path
) -> None:
    first: Any = FakePipeline()
    generate_videos(first, read_requests(table), Options(), tmp_path / "videos")
    with pytest.raises(CollectionInvalid, match="another bundle or with other options"):
        generate_videos(pipeline, read_requests(table), options, tmp_path / "videos")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("portrait\na.png\n", "lacks the columns prompt"),
        ("portrait,prompt\nb.png,a\n", "row 1: portrait 'b.png' is not a file"),
        ("portrait,prompt\na.png,\n", "row 1: prompt is empty"),
        ("portrait,prompt,seed\na.png,a,-1\n", "row 1: seed must be a whole number"),
        ("video,portrait,prompt\nv.mkv,a.png,a\n", "it lists videos, not requests"),
    ],
)
def test_an_invalid_table_is_refused_with_the_reason(content: str, message: str, table: Path) -> None:
    table.write_text(content)
    with pytest.raises(CollectionInvalid) as caught:
        read_requests(table)
    assert message in str(caught.value)


def test_the_command_runs_a_real_bundle(torch_bundle_of: Any, portrait: bytes, tmp_path: Path) -> None:
    import typer

    from consisid_fidelity.cli import videos_command

    (tmp_path / "p.png").write_bytes(portrait)
    (tmp_path / "requests.csv").write_text("portrait,prompt\np.png,a person\n")
    app = typer.Typer()
    app.command()(videos_command)
    arguments = [str(torch_bundle_of()), str(tmp_path / "requests.csv"), str(tmp_path / "videos"), "--steps=1"]
    for made in ("made 1 of 1", "made 0 of 1"):
        done = CliRunner().invoke(app, [*arguments, "--device=cpu"], catch_exceptions=False)
        assert done.exit_code == 0 and made in done.output
    (video,) = read_collection(tmp_path / "videos")
    assert video.frames().ndim == 4
