"""The demo requests a video of every person with every prompt and writes the results; server and client are fakes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from consisid_nano.cli import demo as command
from consisid_nano.demo import demo
from consisid_nano.world import HELD_OUT_PEOPLE, person, scene
from consisid_nano.world import portrait as drawn
from consisid_runtime.errors import OutputUnwritable
from consisid_runtime.options import Options
from consisid_runtime.stages.face.image import read_pixels
from consisid_runtime.video import Video

Asked = list[tuple[bytes, str, Options]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """Collects the requests; each is answered with grey frames of increasing brightness."""
    monkeypatch.chdir(tmp_path_factory.mktemp("demo"))
    requests: Asked = []

    class Client:
        def __init__(self, url: str) -> None:
            assert url == "grpc://here"

        def __enter__(self) -> "Client":
            return self

        def __exit__(self, *_: object) -> None: ...

        def generate(self, image: bytes, prompt: str, options: Options, *, raw_frames: bool) -> Video:
            assert raw_frames, "the demo needs frames without the loss of an MP4"
            requests.append((image, prompt, options))
            frames = np.full((17, 64, 96, 3), 9 * len(requests), np.uint8)
            frames += np.arange(17, dtype=np.uint8)[:, None, None, None]
            return Video(mp4=b"an mp4", frames=frames, fps=8, info={"seconds": {"face": 0.1, "decode": 2.0}})

    @contextmanager
    def server(bundle: Path, **ports: int) -> Iterator[Any]:
        assert bundle == Path("kept/bundle") and set(ports.values()) == {0}
        yield SimpleNamespace(grpc_url="grpc://here")

    monkeypatch.setattr(demo, "unpack_nano", lambda folder: True)
    monkeypatch.setattr(demo, "Checkpoint", SimpleNamespace(open=lambda path: path))
    monkeypatch.setattr(demo, "export_bundle", lambda checkpoint, out, **options: True)
    monkeypatch.setattr(demo, "Server", server)
    monkeypatch.setattr(demo, "Client", Client)
    return requests


def test_one_person_and_one_prompt_make_a_sheet_and_a_video(asked: Asked, tmp_path: Path) -> None:
    said: list[str] = []
    demo.run_demo(Path("kept"), tmp_path, said.append)
    assert asked == [(demo.portrait(0), demo.prompt(0), demo.OPTIONS)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo.mp4", "demo.png"]
    assert (tmp_path / "demo.mp4").read_bytes() == b"an mp4"
    assert "demo.mp4" in said[-2] and "consisid up --bundle kept/bundle" in said[-1]


def test_several_make_an_animated_grid(asked: Asked, tmp_path: Path) -> None:
    command(Path("kept"), tmp_path, people=2, prompts=3)
    assert [request[:2] for request in asked] == [
        (demo.portrait(who), demo.prompt(what)) for who in range(2) for what in range(3)
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo.gif", "demo.png"]
    with Image.open(tmp_path / "demo.gif") as moving:
        assert moving.n_frames == 17 and moving.info["loop"] == 0 and moving.info["duration"] == 120


def test_an_unwritable_output_is_refused_before_any_work(asked: Asked, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputUnwritable, match="nothing can be written into"):
        demo.run_demo(Path("kept"), tmp_path / "file", lambda text: pytest.fail(text))
    assert not asked


def test_people_and_scenes_are_held_out_of_training() -> None:
    for number in range(3):
        where = scene(HELD_OUT_PEOPLE + number, held_out=True)
        assert where.held_out
        assert where.colour in demo.prompt(number) and where.garment in demo.prompt(number)
        who = HELD_OUT_PEOPLE + number
        assert np.array_equal(read_pixels(demo.portrait(number)), drawn(person(who), who).pixels)
