"""The command line as a shell sees it: what is printed, and the exit code."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROMPT = "a woman by a flag"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from consisid_runtime.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def photo(portrait: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "portrait.png"
    path.write_bytes(portrait)
    return path


def test_help_lists_every_command_and_the_exit_codes() -> None:
    done = run("--help")
    assert done.returncode == 0
    for command in ("generate", "request", "serve", "inspect", "doctor", "nano", "export", "demo", "bench"):
        assert f" {command} " in done.stdout
    assert "Exit codes" in done.stdout


def test_generate_writes_a_video_and_says_what_it_did(nano_bundle: Path, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    options = ("--steps", "2", "--frames", "9", "--seed", "5", "--no-local-identity", "--face-index", "0")
    done = run(
        "generate", "--bundle", nano_bundle, "--image", photo, "--prompt", PROMPT, "--out", out, "--json", *options
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["seed"], told["options"]["frames"], told["options"]["local_identity"]) == (5, 9, False)
    assert out.read_bytes()[4:8] == b"ftyp"


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (("--guidance", "nan"), 3, "INVALID_OPTION"),
        (("--face-index", "first"), 3, "INVALID_OPTION"),
        (("--face-index", "5"), 3, "FACE_INDEX_OUT_OF_RANGE"),
        (("--image", "/nonexistent.png"), 3, "IMAGE_UNREADABLE"),
        (("--prompt", "  "), 3, "EMPTY_PROMPT"),
        (("--bundle", "/nonexistent"), 4, "BUNDLE_MISSING"),
        (("--out", "/nonexistent/out.mp4"), 5, "OUTPUT_UNWRITABLE"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_an_error_has_a_code_for_people_and_machines(
    arguments: tuple[str, ...], status: int, code: str, nano_bundle: Path, photo: Path, tmp_path: Path
) -> None:
    given = {
        "--bundle": nano_bundle,
        "--image": photo,
        "--prompt": PROMPT,
        "--out": tmp_path / "out.mp4",
        "--steps": "1",
    }
    given |= dict(zip(arguments[::2], arguments[1::2], strict=True))
    command = ["generate", *(str(part) for pair in given.items() for part in pair)]
    people, machines = run(*command), run(*command, "--json")
    assert people.returncode == machines.returncode == status
    assert people.stderr.startswith(f"{code}: ") and "Traceback" not in people.stderr
    assert json.loads(machines.stdout)["error"]["code"] == code
    assert not (tmp_path / "out.mp4").exists()


def test_wrong_use_names_the_flag() -> None:
    done = run("generate", "--stepz", "3")
    assert done.returncode == 2
    assert "--stepz" in done.stderr and "--steps" in done.stderr


def test_no_server_is_an_error_of_its_own(photo: Path, tmp_path: Path) -> None:
    url = "grpc://127.0.0.1:9"
    done = run("request", "--url", url, "--image", photo, "--prompt", PROMPT, "--out", tmp_path / "out.mp4")
    assert done.returncode == 6
    assert done.stderr.startswith("SERVER_UNREACHABLE: ")


def test_inspect_tells_what_a_bundle_is(nano_bundle: Path) -> None:
    told = json.loads(run("inspect", nano_bundle, "--json").stdout)
    assert told["verified"] and told["engine"] == "onnx"
    assert "non-commercial" in run("inspect", nano_bundle).stdout


def test_doctor_tells_what_is_missing() -> None:
    told = json.loads(run("doctor", "--json").stdout)
    assert told["extras"]["export"]["missing"] == []
    assert told["packages"]["torch"]
