"""The commands of docs/requests.md, as printed there, against a server that answers with the image as its video."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from consisid_runtime.door.door import Door
from consisid_runtime.serve.tritonserver import TritonServer

PAGE = (Path(__file__).parents[3] / "docs" / "requests.md").read_text(encoding="utf-8")
ESTIMATE, CURL, GRPCURL_LINES, PROTOSET, EVENTS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
PHOTO = bytes(range(256)) * 999

# grpcurl is no Python package: this does what that command line asks of it, with the same JSON, by reflection or
# with the same protoset.
GRPCURL = """import sys
import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

*flags, address, method = sys.argv[1:]
described = flags[0] == "-protoset"
assert flags[2 * described :] == ["-plaintext", "-max-msg-sz", "2000000000", "-d", "@"], flags
service, name = method.split("/")
if described:
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(open(flags[1], "rb").read()).file:
        pool.Add(file)
else:
    pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(grpc.insecure_channel(address)))
found = pool.FindServiceByName(service).FindMethodByName(name)
kinds = [message_factory.GetMessageClass(kind) for kind in (found.input_type, found.output_type)]
with grpc.insecure_channel(address) as channel:
    call = channel.unary_unary(f"/{method}", kinds[0].SerializeToString, kinds[1].FromString)
    print(json_format.MessageToJson(call(json_format.Parse(sys.stdin.read(), kinds[0]()), timeout=60)))
"""

pytestmark = pytest.mark.server


@pytest.fixture(params=["door", "direct"])
def served(request: pytest.FixtureRequest) -> Door | TritonServer:
    """The server behind the door, and another one with its own ports."""
    found: Door | TritonServer = request.getfixturevalue("tiny_door" if request.param == "door" else "tiny_server")
    return found


PROMPTS = (
    "a man",
    'a "quoted" man, \\ and \\n and %s and \\x41',
    "it's $HOME `date` $(date) !!",
    "two\nlines\n\n",
    " spaces  around\t",
    "ein Mädchen läuft, 海, 🌊",
    "-n",
    "long " * 10_000,
)


def run(
    block: str, folder: Path, url: str, photo: bytes = PHOTO, name: str = "portrait.jpg", **replacements: str
) -> subprocess.CompletedProcess[str]:
    (folder / name).write_bytes(photo)
    script = re.sub(r"url=\S+", f"url={url}", block)
    for old, new in replacements.items():
        assert old in script
        script = script.replace(old, new)
    path = os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl(served: Door | TritonServer, tmp_path: Path) -> None:
    done = run(CURL, tmp_path, served.http_url)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out.mp4").read_bytes() == PHOTO


def seen(folder: Path) -> str:
    """The prompt in the `info` that was asked for instead of the video."""
    sent = (folder / "out.mp4").read_bytes()
    return str(json.loads(sent[4:])["prompt"])


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("prompt", PROMPTS)
def test_curl_sends_any_prompt(tiny_door: Door, tmp_path: Path, prompt: str) -> None:
    changes = {"'a man reading by the sea'": shlex.quote(prompt), '{"name": "video"': '{"name": "info"'}
    done = run(CURL, tmp_path, tiny_door.http_url, **changes)
    assert (done.returncode, done.stderr) == (0, "")
    assert seen(tmp_path) == prompt


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_sends_a_large_image_with_spaces_in_its_name(served: Door | TritonServer, tmp_path: Path) -> None:
    """At 8 MB of a form's type, curl's default, Triton server 2.51 would end."""
    photo = PHOTO * 32
    done = run(CURL, tmp_path, served.http_url, photo, "my $photo.jpg", **{"portrait.jpg": "'my $photo.jpg'"})
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out.mp4").read_bytes() == photo


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_reports_an_error(served: Door | TritonServer, tmp_path: Path) -> None:
    done = run(CURL, tmp_path, served.http_url, steps="stepz")
    assert done.returncode == 22
    assert "curl: (22) The requested URL returned error: 400" in done.stderr
    assert not (tmp_path / "out.mp4").exists()
    assert "INVALID_OPTION: unknown option 'stepz'" in (tmp_path / "answer").read_text()


@pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq")
@pytest.mark.parametrize("prompt", ["a man", PROMPTS[1], PROMPTS[3]])
def test_grpcurl(served: Door | TritonServer, tmp_path: Path, prompt: str) -> None:
    grpcurl = GRPCURL_LINES
    if isinstance(served, TritonServer):
        assert run(PROTOSET + "\n# url=", tmp_path, "").returncode == 0
        grpcurl = grpcurl.replace("grpcurl -plaintext", "grpcurl -protoset kserve.protoset -plaintext")
    stand_in = tmp_path / "grpcurl"
    (program := tmp_path / "grpcurl.py").write_text(GRPCURL)
    stand_in.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(program))} "$@"\n')
    stand_in.chmod(stand_in.stat().st_mode | stat.S_IXUSR)
    address = served.grpc_url.removeprefix("grpc://")
    done = run(grpcurl, tmp_path, address)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out.mp4").read_bytes() == PHOTO
    changes = {"'a man reading by the sea'": shlex.quote(prompt), '{name: "video"': '{name: "info"'}
    done = run(grpcurl, tmp_path, address, **changes)
    assert (done.returncode, done.stderr) == (0, "")
    assert seen(tmp_path) == prompt


@pytest.mark.skipif(shutil.which("curl") is None or shutil.which("jq") is None, reason="needs curl and jq")
def test_curl_estimates(tiny_door: Door, tmp_path: Path) -> None:
    done = run(ESTIMATE, tmp_path, tiny_door.http_url)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["position"] == 0


@pytest.mark.skipif(shutil.which("curl") is None or shutil.which("jq") is None, reason="needs curl and jq")
def test_curl_shows_events(tiny_door: Door, tmp_path: Path) -> None:
    done = run(EVENTS, tmp_path, tiny_door.http_url, **{"a man reading by the sea": "sleep 0.1"})
    assert (done.returncode, done.stderr) == (0, "")
    stages = [json.loads(line)["stage"] for line in done.stdout.splitlines()]
    assert stages == ["queue", "denoise", "denoise"]
    assert (tmp_path / "out.mp4").read_bytes() == PHOTO


def test_tritonclient_shows_events(
    tiny_door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "portrait.jpg").write_bytes(PHOTO)
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    address = tiny_door.grpc_url.removeprefix("grpc://")
    exec(block.replace("127.0.0.1:8001", address).replace("a man reading by the sea", "sleep 0.1"), {})
    assert [json.loads(line)["stage"] for line in capsys.readouterr().out.splitlines()] == [
        "queue",
        "denoise",
        "denoise",
    ]
    assert (tmp_path / "out.mp4").read_bytes() == PHOTO
