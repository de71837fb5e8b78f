"""The command run as a process: what it prints, and its exit code."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from consisid_runtime.cli.commands import _save
from consisid_runtime.mp4 import read_tags
from consisid_runtime.provenance.credentials import check
from consisid_runtime.provenance.marks import facts_of
from consisid_runtime.video import Video

PROMPT = "a woman by a flag"
MAIN = [sys.executable, "-c", "from consisid_runtime.cli.main import main; main()"]


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*MAIN, *map(str, arguments)], capture_output=True, text=True, env=os.environ | environment)


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
    assert "Exit codes" in done.stdout and "8 The networks returned NaN or infinity" in done.stdout


def test_generate_writes_a_signed_video_and_reports_its_options(
    untrained_bundle: Path, photo: Path, signing_files: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.mp4"
    options = ["--steps", "2", "--frames", "9", "--seed", "5", "--no-local-identity", "--face-index", "0"]
    options += ["--sign-cert", str(signing_files / "cert.pem"), "--sign-key", str(signing_files / "key.pem")]
    done = run(
        "generate", "--bundle", untrained_bundle, "--image", photo, "--prompt", PROMPT, "--out", out, "--json", *options
    )
    assert done.returncode == 0, done.stderr
    info = json.loads(done.stdout)
    assert (info["seed"], info["options"]["frames"], info["options"]["local_identity"]) == (5, 9, False)
    assert (signed := check(out.read_bytes())) and signed.state == "valid"
    facts = facts_of(read_tags(out.read_bytes()))
    assert facts and facts["bundle"] == info["bundle"] and facts["options"].items() <= info["options"].items()
    assert PROMPT.encode() not in out.read_bytes()


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
def test_an_error_is_one_line_of_text_or_json_and_an_exit_code(
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
    text, as_json = run(*command), run(*command, "--json")
    assert text.returncode == as_json.returncode == status
    assert text.stderr.startswith(f"{code}: ") and "Traceback" not in text.stderr
    assert json.loads(as_json.stdout)["error"]["code"] == code
    assert not (tmp_path / "out.mp4").exists()


def test_a_prompt_may_look_like_a_flag(untrained_bundle: Path, tmp_path: Path) -> None:
    command = ("generate", "--bundle", untrained_bundle, "--image", "/nonexistent.png", "--out", tmp_path / "out.mp4")
    done = run(*command, "--prompt", "--json")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("IMAGE_UNREADABLE: ")


@pytest.mark.parametrize(
    ("arguments", "sink"),
    [
        (("inspect", "BUNDLE"), "/dev/full"),
        (("inspect", "BUNDLE"), "broken pipe"),
        (("inspect", "/nonexistent", "--json"), "/dev/full"),
        (("inspect", "/nonexistent", "--json"), "broken pipe"),
        (("--help",), "/dev/full"),
        (("generate", "--help"), "/dev/full"),
    ],
)
def test_standard_output_that_cannot_be_written(arguments: tuple[str, ...], sink: str, untrained_bundle: Path) -> None:
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


def test_warnings_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info = {"options": {"frames": 9, "height": 32, "width": 32}, "seed": 0, "face": {"faces": 1}, "seconds": {}}
    _save(Video(mp4=b"x", fps=8, info=info | {"warnings": ["a word is lost"]}), tmp_path / "out.mp4", False)
    assert "\na word is lost\n" in capsys.readouterr().out
    _save(Video(mp4=b"x", fps=8, info=info), tmp_path / "out.mp4", False)  # of an older server


@pytest.mark.parametrize("name", ["out.gif", "out.webm", "out.png", "out", "out.mp4.part", ".mp4"])
def test_a_name_that_is_not_an_mp4_files_is_refused_before_any_work(name: str, photo: Path, tmp_path: Path) -> None:
    done = run("generate", "--bundle", "/nonexistent", "--image", photo, "--prompt", PROMPT, "--out", tmp_path / name)
    assert done.returncode == 3
    assert done.stderr.startswith("INVALID_OPTION: the video is an MP4 file: its name must end in .mp4, got ")
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("command", ["generate", "request"])
def test_the_portrait_is_never_overwritten(command: str, portrait: bytes, tmp_path: Path) -> None:
    photo, link = tmp_path / "me.mp4", tmp_path / "link.mp4"
    photo.write_bytes(portrait)
    link.symlink_to(photo)
    source = {"generate": ("--bundle", "/nonexistent"), "request": ("--url", "grpc://127.0.0.1:9")}[command]
    done = run(command, *source, "--image", photo, "--prompt", PROMPT, "--out", link)
    assert done.returncode == 3
    assert done.stderr.startswith("INVALID_OPTION: ") and "is the portrait itself" in done.stderr
    assert photo.read_bytes() == portrait and link.is_symlink()


def test_nano_refuses_a_seed_out_of_range(tmp_path: Path) -> None:
    done = run("nano", tmp_path / "nano", "--random", "--seed", "99999999999999999999")
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("INVALID_OPTION: seed must be")


@pytest.mark.parametrize(("flag", "value"), [("--seed", "0"), ("--size", "mid")])
def test_nano_refuses_what_belongs_to_random_weights(tmp_path: Path, flag: str, value: str) -> None:
    done = run("nano", tmp_path / "nano", flag, value)
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith(
        f"INVALID_OPTION: {flag} applies to an untrained checkpoint only, got {value} without --random"
    )


def test_the_demo_needs_at_least_one_person() -> None:
    done = run("demo", "--people", "0")
    assert done.returncode == 2 and "--people" in done.stderr


@pytest.mark.parametrize(
    ("flag", "meant"),
    [
        ("--stepz", "--steps"),
        ("--guidance-scale", "--guidance"),
        ("--num_inference_steps=9", "--steps"),
        ("--num-frames", "--frames"),
        ("--generator", "--seed"),
        ("--negative_prompt_embeds", "--negative-prompt"),
    ],
)
def test_an_unknown_flag_is_reported_with_the_one_that_was_meant(flag: str, meant: str) -> None:
    done = run("generate", flag, "3")
    assert done.returncode == 2
    assert flag.partition("=")[0] in done.stderr and re.search(rf"{meant}\b(?!-)", done.stderr)


def test_an_unreachable_server_has_its_own_error(photo: Path, tmp_path: Path) -> None:
    url = "grpc://127.0.0.1:9"
    done = run("request", "--url", url, "--image", photo, "--prompt", PROMPT, "--out", tmp_path / "out.mp4")
    assert done.returncode == 6
    assert done.stderr.startswith("SERVER_UNREACHABLE: ")


def test_a_request_shows_the_elapsed_time_on_a_terminal(photo: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        command = ("request", "--url", url, "--image", photo, "--prompt", PROMPT, "--out", tmp_path / "out.mp4")
        done = run(*command, "--timeout", "2", FORCE_COLOR="1")
        quiet = run(*command, "--timeout", "1", FORCE_COLOR="", TERM="dumb")
    assert done.returncode == quiet.returncode == 6
    assert "request: waiting for the server" in done.stderr and "0:00:01" in done.stderr
    assert quiet.stderr.startswith("SERVER_TIMEOUT: ")


def test_inspect_describes_a_bundle(untrained_bundle: Path) -> None:
    found = json.loads(run("inspect", untrained_bundle, "--json").stdout)
    assert found["verified"] and found["engine"] == "onnx"
    assert found["tiers"] == ["exact"]
    assert "non-commercial" in run("inspect", untrained_bundle).stdout


def test_inspect_prints_the_steps_that_a_tier_computes(trained_bundle_of: Callable[[str], Path]) -> None:
    shown = ("inspect", trained_bundle_of("torch"), "--steps", 20, "--tier", "fast")
    found = json.loads(run(*shown, "--json").stdout)
    steps = found["run"]["computed"]
    assert found["tiers"] == ["exact", "fast", "draft"] and found["run"]["guided_steps"] == 20
    assert (steps[0], steps[-1]) == (0, 19) and len(steps) < 20
    line = f"20 steps in tier fast: computes {len(steps)} (from 0: {', '.join(map(str, steps))})"
    assert line in run(*shown).stdout
    refused = run("inspect", trained_bundle_of("torch"), "--tier", "fp8")
    assert refused.returncode == 3 and refused.stderr.startswith("TIER_UNAVAILABLE: ")


def test_doctor_lists_what_is_missing() -> None:
    found = json.loads(run("doctor", "--json").stdout)
    assert found["extras"]["export"]["missing"] == []
    assert found["packages"]["torch"]
