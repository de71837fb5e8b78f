"""The command line as a shell sees it: what is printed, and the exit code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from consisid_runtime import errors
from consisid_runtime.cli.commands import _save
from consisid_runtime.cli.main import exit_code
from consisid_runtime.video import Video

PROMPT = "a woman by a flag"
MAIN = [sys.executable, "-c", "from consisid_runtime.cli.main import main; main()"]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*MAIN, *map(str, arguments)], capture_output=True, text=True)


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


def test_generate_writes_a_video_and_says_what_it_did(untrained_bundle: Path, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    options = ("--steps", "2", "--frames", "9", "--seed", "5", "--no-local-identity", "--face-index", "0")
    done = run(
        "generate", "--bundle", untrained_bundle, "--image", photo, "--prompt", PROMPT, "--out", out, "--json", *options
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
    arguments: tuple[str, ...], status: int, code: str, untrained_bundle: Path, photo: Path, tmp_path: Path
) -> None:
    given = {
        "--bundle": untrained_bundle,
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


def test_a_prompt_may_look_like_a_flag(untrained_bundle: Path, tmp_path: Path) -> None:
    told = ("generate", "--bundle", untrained_bundle, "--image", "/nonexistent.png", "--out", tmp_path / "out.mp4")
    done = run(*told, "--prompt", "--json")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("IMAGE_UNREADABLE: ")


def test_an_unexpected_failure_of_a_server_is_one_here() -> None:
    statuses = {kind: exit_code(errors.CODES[kind]()) for kind in ("INTERNAL", "NOT_FINITE", "SERVER_ERROR")}
    assert statuses == {"INTERNAL": 1, "NOT_FINITE": 4, "SERVER_ERROR": 6}


def test_cancelling_ends_as_shells_expect() -> None:
    assert exit_code(errors.ExportCancelled()) == 130


@pytest.mark.parametrize("arguments", [("inspect", "BUNDLE"), ("inspect", "/nonexistent", "--json")])
@pytest.mark.parametrize("sink", ["/dev/full", "broken pipe"])
def test_results_that_nobody_can_read(arguments: tuple[str, ...], sink: str, untrained_bundle: Path) -> None:
    command = [*MAIN, *(str(untrained_bundle) if part == "BUNDLE" else part for part in arguments)]
    if sink == "broken pipe":
        reader, descriptor = os.pipe()
        os.close(reader)
    else:
        descriptor = os.open(sink, os.O_WRONLY)
    done = subprocess.run(command, stdout=descriptor, stderr=subprocess.PIPE, text=True)
    os.close(descriptor)
    assert done.returncode == 5
    assert done.stderr.startswith("OUTPUT_UNWRITABLE: standard output") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("cut", "told"), [(0, "only the beginning of its first word was read"), (7, "cut after character 7")]
)
def test_a_cut_prompt_is_told(cut: int, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info = {"options": {"frames": 9, "height": 32, "width": 32}, "seed": 0, "face": {"faces": 1}, "seconds": {}}
    _save(Video(mp4=b"x", fps=8, info=info | {"text": {"prompt_cut_at": cut}}), tmp_path / "out.mp4", False)
    assert f"the prompt was too long: {told}\n" in capsys.readouterr().out


def test_nano_takes_the_seeds_that_there_are(tmp_path: Path) -> None:
    done = run("nano", tmp_path / "nano", "--random", "--seed", "99999999999999999999")
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("INVALID_OPTION: seed must be")


def test_the_trained_nano_has_no_seed(tmp_path: Path) -> None:
    done = run("nano", tmp_path / "nano", "--seed", "0")
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("INVALID_OPTION: --seed applies to the untrained checkpoint only, got 0 without --random")


def test_a_demo_of_nobody_is_wrong_use() -> None:
    done = run("demo", "--people", "0")
    assert done.returncode == 2 and "--people" in done.stderr


def test_wrong_use_names_the_flag() -> None:
    done = run("generate", "--stepz", "3")
    assert done.returncode == 2
    assert "--stepz" in done.stderr and "--steps" in done.stderr


def test_no_server_is_an_error_of_its_own(photo: Path, tmp_path: Path) -> None:
    url = "grpc://127.0.0.1:9"
    done = run("request", "--url", url, "--image", photo, "--prompt", PROMPT, "--out", tmp_path / "out.mp4")
    assert done.returncode == 6
    assert done.stderr.startswith("SERVER_UNREACHABLE: ")


def test_inspect_tells_what_a_bundle_is(untrained_bundle: Path) -> None:
    told = json.loads(run("inspect", untrained_bundle, "--json").stdout)
    assert told["verified"] and told["engine"] == "onnx"
    assert "non-commercial" in run("inspect", untrained_bundle).stdout


def test_doctor_tells_what_is_missing() -> None:
    told = json.loads(run("doctor", "--json").stdout)
    assert told["extras"]["export"]["missing"] == []
    assert told["packages"]["torch"]
