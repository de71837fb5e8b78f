"""The nano bundle, served, beside the same bundle in this process."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tritonclient.grpc as triton
from hostile_images import chunk, scan_bomb
from PIL import Image
from tritonclient.utils import InferenceServerException

from consisid_runtime import Client, Options, Pipeline, Video
from consisid_runtime.bundle import MANIFEST, Bundle
from consisid_runtime.client.connect import connect
from consisid_runtime.door.door import Door
from consisid_runtime.errors import (
    BundleCorrupt,
    ClientClosed,
    ConsisIDError,
    IdentityExpired,
    ImageUnreadable,
    InvalidOption,
    MissingExtra,
    NoFace,
    from_wire,
)
from consisid_runtime.files import identity
from consisid_runtime.files.ownership import manifest_digest
from consisid_runtime.identity import Identity
from consisid_runtime.plan import plan
from consisid_runtime.serve.server import Server
from consisid_runtime.serve.tensor_checks import checkpoint_dims, request_dims
from consisid_runtime.signatures import ENSEMBLE
from consisid_runtime.stages.table import STAGES

pytestmark = pytest.mark.server

PROMPT = "a man reading by the sea"
WORLD = "drawn people; photographs are outside of it"
QUICK = Options(seed=3, steps=2, frames=9)


@pytest.fixture(scope="module")
def served(untrained_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with a name that the Python backend cannot read, of a checkpoint that says what it knows."""
    folder = tmp_path_factory.mktemp("served") / "bü"
    shutil.copytree(untrained_bundle, folder)
    manifest = json.loads((folder / MANIFEST).read_text()) | {"world": WORLD}
    (folder / MANIFEST).write_text(json.dumps(manifest | {"digest": manifest_digest(manifest)}))
    return folder


@pytest.fixture(scope="module")
def server(served: Path) -> Iterator[Server]:
    started = Server(served)
    with started:
        yield started
    assert "failed to stop server" not in "\n".join(started._log.lines())


def test_the_models_get_the_servers_device(served: Path) -> None:
    """No machine has it: without a GPU another error names it than with one. Layouts hand it over alike."""
    with pytest.raises((MissingExtra, InvalidOption), match="device 'cuda:99'"):
        Server(served, device="cuda:99", layout="single").start()


@pytest.fixture(scope="module")
def door(served: Path) -> Iterator[Door]:
    with Door(Server(served, private=True)) as started:
        yield started


@pytest.fixture(scope="module", params=["grpc", "http"])
def client(request: pytest.FixtureRequest, door: Door) -> Iterator[Client]:
    with Client(door.grpc_url if request.param == "grpc" else door.http_url, timeout=120) as opened:
        yield opened


@pytest.fixture(scope="module")
def pipeline(served: Path) -> Pipeline:
    return Pipeline.open(served)


@pytest.fixture(scope="module")
def another(portrait: bytes) -> bytes:
    """The same person mirrored and darker: a different portrait with a face in it."""
    with Image.open(io.BytesIO(portrait)) as image:
        pixels = np.asarray(image.convert("RGB"))[:, ::-1]
    out = io.BytesIO()
    Image.fromarray((pixels * 0.8).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def same(one: Video, other: Video) -> bool:
    return one.mp4 == other.mp4 and np.array_equal(one.frames, other.frames)


def comparable(video: Video) -> Any:
    """Its info without what depends on the moment: seconds, the wait, and whether the photograph was read before."""
    face = {name: value for name, value in video.info["face"].items() if name != "face_cached"}
    return json.loads(json.dumps({**video.info, "seconds": None, "queued": None, "face": face}))


@pytest.mark.parametrize(
    "options",
    [QUICK, Options(seed=2**63 - 1, steps=2, frames=17, guidance=1.0, scheduler="ddim", fps=4, negative_prompt="blur")],
    ids=["dpm", "ddim"],
)
def test_served_equals_in_process(client: Client, pipeline: Pipeline, portrait: bytes, options: Options) -> None:
    served = client.generate(portrait, PROMPT, options, raw_frames=True)
    here = pipeline.generate(portrait, PROMPT, options)
    assert same(served, here)
    assert served.frames.shape[0] == options.frames
    assert served.info.keys() - {"queued"} == here.info.keys()
    assert served.info["seconds"].keys() == here.info["seconds"].keys()
    assert comparable(served) == comparable(here)


@pytest.mark.parametrize("url", ["grpc_url", "http_url"])
def test_without_the_door_the_bytes_are_the_same(server: Server, client: Client, portrait: bytes, url: str) -> None:
    with Client(getattr(server, url), timeout=120) as direct:
        assert same(*(called.generate(portrait, PROMPT, QUICK, raw_frames=True) for called in (direct, client)))


def test_a_caller_who_leaves_frees_the_device_within_a_step(door: Door, client: Client, portrait: bytes) -> None:
    """A thousand steps take minutes, and a quick request some tenths of a second."""
    threading.Timer(1.0, (leaving := Client(door.grpc_url, timeout=600)).close).start()
    with pytest.raises(ClientClosed):
        leaving.generate(portrait, PROMPT, Options(steps=1000, frames=17))
    begin = time.monotonic()
    assert client.generate(portrait, PROMPT, QUICK).mp4
    assert time.monotonic() - begin < 5


def test_an_identity_stands_for_a_photograph(client: Client, portrait: bytes) -> None:
    known, other = client.identify(portrait), client.identify(portrait)
    assert known.info["faces"] == 1 and known.handle != other.handle and known.handle not in repr(known)
    plain = client.generate(portrait, PROMPT, QUICK)
    video = client.generate(known, PROMPT, QUICK)
    assert video.mp4 == plain.mp4 and video.info["face"]["face_cached"]
    *_, streamed = client.stream(known, PROMPT, QUICK)
    assert isinstance(streamed, Video) and streamed.mp4 == plain.mp4
    with pytest.raises(InvalidOption, match="read with"):
        client.generate(known, PROMPT, replace(QUICK, face_index=0))
    for _ in range(2):
        client.forget(known)
    for unknown in (known, Identity("x" * 32, {})):
        with pytest.raises(IdentityExpired):
            client.generate(unknown, PROMPT, QUICK)
    assert client.generate(other, PROMPT, QUICK).mp4 == plain.mp4
    Image.new("RGB", (300, 300)).save(blank := io.BytesIO(), "PNG")
    with pytest.raises(NoFace):
        client.identify(blank.getvalue())


def test_similarity_crosses_the_door(client: Client, portrait: bytes) -> None:
    """Videos of an untrained checkpoint have no faces."""
    plain, compared = (client.generate(portrait, PROMPT, QUICK, similarity=asked) for asked in (False, True))
    nobody = {"mean": None, "minimum": None, "frames": 8, "frames_without_face": 8}
    assert compared.info["similarity"] == nobody and compared.mp4 == plain.mp4 and "similarity" not in plain.info


def test_an_estimate_is_of_what_the_server_has_made(client: Client, door: Door, portrait: bytes) -> None:
    client.generate(portrait, PROMPT, replace(QUICK, steps=8), similarity=True)
    made = client.generate(portrait, PROMPT, replace(QUICK, steps=8)).info["seconds"]
    found = client.estimate(replace(QUICK, steps=16))
    assert found.stages["denoise"] == pytest.approx(2 * made["denoise"], abs=1e-3)
    assert found.stages.keys() == made.keys(), "what only some requests want is left out"
    assert found.seconds == pytest.approx(sum(found.stages.values()), abs=1e-3)
    assert found.host_bytes and found.host_bytes > 2**28 and found.device_bytes == 0
    larger = client.estimate(replace(QUICK, frames=49)).host_bytes
    assert larger and larger > found.host_bytes


def test_the_mp4_is_the_same_without_raw_frames(client: Client, portrait: bytes) -> None:
    with_frames = client.generate(portrait, PROMPT, QUICK, raw_frames=True)
    without = client.generate(portrait, PROMPT, QUICK)
    assert without.mp4 == with_frames.mp4
    assert without.frames.shape == with_frames.frames.shape


def test_two_portraits_at_once(client: Client, pipeline: Pipeline, portrait: bytes, another: bytes) -> None:
    answers: dict[int, Video] = {}

    def work(number: int) -> None:
        answers[number] = client.generate((portrait, another)[number % 2], PROMPT, QUICK, raw_frames=True)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = [pipeline.generate(image, PROMPT, QUICK) for image in (portrait, another)]
    assert not np.array_equal(alone[0].frames, alone[1].frames)
    assert all(same(answers[number], alone[number % 2]) for number in range(4))


def test_what_ran_before_does_not_matter(client: Client, portrait: bytes, another: bytes) -> None:
    first = client.generate(portrait, PROMPT, QUICK, raw_frames=True)
    client.generate(another, "something else", Options(seed=9, steps=3, frames=17, negative_prompt="blur"))
    assert same(first, client.generate(portrait, PROMPT, QUICK, raw_frames=True))


def bomb(portrait: bytes) -> bytes:
    """A PNG whose header promises 30,000 × 30,000 pixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def drawn(size: tuple[int, int]) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, "white").save(out, "PNG")
    return out.getvalue()


BAD_IMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda photo: b"", "IMAGE_UNREADABLE"),
    "not an image": (lambda photo: b"plain text", "IMAGE_UNREADABLE"),
    "truncated": (lambda photo: photo[: len(photo) // 2], "IMAGE_UNREADABLE"),
    "1×1": (lambda photo: drawn((1, 1)), "IMAGE_TOO_SMALL"),
    "bomb": (bomb, "IMAGE_TOO_LARGE"),
    "scans": (lambda photo: scan_bomb(1000, 3000), "IMAGE_TOO_LARGE"),
    "blank": (lambda photo: drawn((256, 256)), "NO_FACE"),
}


@pytest.mark.parametrize(("make", "code"), BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_bad_images(
    client: Client, pipeline: Pipeline, portrait: bytes, make: Callable[[bytes], bytes], code: str
) -> None:
    messages = []
    for generate in (pipeline.generate, client.generate):
        with pytest.raises(ConsisIDError) as caught:
            generate(make(portrait), PROMPT, QUICK)
        assert caught.value.code == code
        assert type(caught.value) is type(from_wire(f"{code}: "))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert (f"; this checkpoint knows {WORLD}: use a picture" in messages[1]) == (code == "NO_FACE")
    assert client.generate(portrait, PROMPT, QUICK).mp4


def test_metadata_does_not_decide(client: Client, pipeline: Pipeline, portrait: bytes) -> None:
    """Two megabytes of colour profile and text, which Pillow refuses to inflate."""
    header = portrait.index(b"IHDR") + 21
    added = chunk(b"iCCP", b"large\0\0" + zlib.compress(bytes(2**21))) + chunk(
        b"zTXt", b"a\0\0" + zlib.compress(bytes(2**21))
    )
    answer = client.generate(portrait[:header] + added + portrait[header:], PROMPT, QUICK)
    assert answer.mp4 == pipeline.generate(portrait, PROMPT, QUICK).mp4


@pytest.mark.parametrize(
    ("prompt", "options", "code"),
    [
        ("", QUICK, "EMPTY_PROMPT"),
        ("  \n", QUICK, "EMPTY_PROMPT"),
        ("😀 一个女人", QUICK, "EMPTY_PROMPT"),
        ("a " * 500_000, QUICK, "INVALID_OPTION"),
        (PROMPT, Options(steps=2, frames=10), "INVALID_OPTION"),
        (PROMPT, Options(steps=2, frames=9, height=8), "INVALID_OPTION"),
        (PROMPT, Options(steps=2, frames=9, face_index=5), "FACE_INDEX_OUT_OF_RANGE"),
        (PROMPT, Options(steps=2, frames=9, tier="draft"), "TIER_UNAVAILABLE"),
    ],
)
def test_bad_requests(
    client: Client, pipeline: Pipeline, portrait: bytes, prompt: str, options: Options, code: str
) -> None:
    messages = []
    for generate in (pipeline.generate, client.generate):
        with pytest.raises(ConsisIDError) as caught:
            generate(portrait, prompt, options)
        messages.append(caught.value.wire())
    assert messages[0] == messages[1]
    assert messages[0].startswith(f"{code}: ")
    assert client.generate(portrait, PROMPT, QUICK).mp4


def test_a_long_prompt_is_cut_and_says_where(client: Client, pipeline: Pipeline, portrait: bytes) -> None:
    prompt = "sea " * 10_000
    served, here = client.generate(portrait, prompt, QUICK), pipeline.generate(portrait, prompt, QUICK)
    assert served.mp4 == here.mp4
    assert served.info["text"]["prompt_cut_at"] == here.info["text"]["prompt_cut_at"] < len(prompt)
    assert served.info["warnings"] == here.info["warnings"]
    assert "the prompt was too long: cut after character" in served.info["warnings"][0]


def test_unknown_words_are_counted_and_warned_of(client: Client, pipeline: Pipeline, portrait: bytes) -> None:
    prompt = f"{PROMPT} 走 😀"
    served, here = client.generate(portrait, prompt, QUICK), pipeline.generate(portrait, prompt, QUICK)
    assert served.info["text"] == here.info["text"] and served.info["text"]["prompt_unknown_tokens"] == 2
    assert served.info["warnings"] == here.info["warnings"]
    assert (
        "2 of the " in served.info["warnings"][0] and "tokens of the prompt are unknown" in served.info["warnings"][0]
    )
    assert client.generate(portrait, PROMPT, QUICK).info["warnings"] == []


def executions(server: Server) -> dict[str, int]:
    """Requests that each model has executed, once the counts are stable: Triton server counts after it answers."""

    def count() -> dict[str, int]:
        found = raw.get_inference_statistics(as_json=True)["model_stats"]
        return {
            model["name"]: sum(int(model["inference_stats"][end].get("count", 0)) for end in ("success", "fail"))
            for model in found
        }

    with triton.InferenceServerClient(server.grpc_url.removeprefix("grpc://")) as raw:
        counts = count()
        for _ in range(50):
            time.sleep(0.1)
            before, counts = counts, count()
            if counts == before:
                return counts
    raise AssertionError("the counts of an idle server must become stable")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"stepz": 2}, "did you mean 'steps'"),
        ({"steps": 1001}, "1001"),
        ({"guidance": float("nan")}, "nan"),
        ({"seed": -1}, "-1"),
    ],
    ids=["unknown", "steps", "nan", "seed"],
)
@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_options_that_no_client_of_ours_would_send(
    server: Server, portrait: bytes, scheme: str, parameters: dict[str, Any], message: str
) -> None:
    transport = connect(server.grpc_url if scheme == "grpc" else server.http_url)
    before = executions(server)
    with pytest.raises(InvalidOption, match=message):
        asyncio.run(transport.infer(ENSEMBLE.name, {"image": portrait, "prompt": PROMPT}, parameters, ["video"], 60))
    after = executions(server)
    assert all(after[name] == before[name] for name in ("encode", "denoise", "decode")), "it failed before the work"


INFO = np.array([b'{"seconds": 1}'], np.object_)
INPUTS: dict[str, Callable[[tuple[int, ...]], Any]] = {
    "FP32": lambda shape: np.zeros(shape, np.float32),
    "UINT8": lambda shape: np.zeros(shape, np.uint8),
}
RANGE = {"span": np.array([1, 2], np.int64), "generator": torch.Generator().get_state().numpy()}


@pytest.mark.parametrize(
    ("stage", "port", "change"),
    [
        ("decode", "latents", lambda good: good[:, :2]),
        ("decode", "latents", lambda good: np.full_like(good, np.nan)),
        ("decode", "face_info", lambda good: np.array([b"no JSON"], np.object_)),
        ("decode", "text_info", lambda good: np.array([b'{"seconds": 1' + b"0" * 400 + b"}"], np.object_)),
        ("decode", "denoise_info", lambda good: np.array([b"[" * 100_000 + b"]" * 100_000], np.object_)),
        ("denoise", "image_moments", lambda good: good.repeat(2, axis=1)),
        ("denoise", "text_states", lambda good: good[:1]),
        ("denoise", "face_tokens", lambda good: np.full_like(good, np.inf)),
        ("denoise", "latents", lambda good: good[:, :1]),
        ("denoise", "x0", lambda good: np.full_like(good, np.nan)),
        ("denoise", "generator", lambda good: np.zeros_like(good)),
        ("denoise", "generator", lambda good: good[:100]),
        ("denoise", "span", lambda good: good[::-1].copy()),
        ("denoise", "span", lambda good: np.array([1, 2**62])),
        ("denoise", "span", lambda good: np.array([-(2**62), 1])),
        ("encode", "portrait", lambda good: good[:-1]),
        ("encode", "keypoints", lambda good: np.full_like(good, np.nan)),
        ("text", "prompt", lambda good: np.array([b"a m\xffn"], np.object_)),
    ],
)
def test_a_stage_called_directly_checks_its_inputs(
    server: Server, untrained_bundle: Path, stage: str, port: str, change: Callable[[Any], Any]
) -> None:
    bundle = Bundle.open(untrained_bundle)
    (signature,) = (found.signature for found in STAGES if found.name == stage)
    bound = signature.bind(checkpoint_dims(bundle)).bind(request_dims(plan(QUICK, bundle.config.geometry)))
    arrays: dict[str, Any] = {
        p.name: RANGE[p.name] if p.name in RANGE else INFO if p.dtype == "BYTES" else INPUTS[p.dtype](p.shape)  # type: ignore[arg-type]
        for p in bound.inputs
    }
    arrays[port] = change(arrays[port])
    tensors = []
    for p in signature.inputs:
        tensors.append(triton.InferInput(p.name, arrays[p.name].shape, p.dtype))
        tensors[-1].set_data_from_numpy(arrays[p.name])
    with triton.InferenceServerClient(server.grpc_url.removeprefix("grpc://")) as raw:
        with pytest.raises(InferenceServerException, match=rf"INVALID_OPTION: .*{port}") as caught:
            raw.infer(stage, tensors, parameters=QUICK.to_mapping(), client_timeout=60)
        assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def flip_a_byte(untrained_bundle: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the bundle, and the file in it that is damaged."""
    damaged = tmp_path / "bundle"
    shutil.copytree(untrained_bundle, damaged)
    victim = max((path for path in damaged.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    return damaged, victim


def test_one_flipped_byte_keeps_the_server_from_starting(untrained_bundle: Path, tmp_path: Path) -> None:
    damaged, victim = flip_a_byte(untrained_bundle, tmp_path)
    with pytest.raises(BundleCorrupt, match=victim.name):
        Server(damaged).start()


def test_models_believe_the_launcher_until_a_file_is_touched(
    untrained_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher is made to accept a damaged file: only models that do not hash it start."""
    damaged, victim = flip_a_byte(untrained_bundle, tmp_path)

    def accept(bundle: Bundle) -> None:
        bundle._verified = {name: identity.identity(bundle.path / name) for name in bundle.manifest["files"]}

    def touch(server: Server) -> Any:  # between the launcher's verification and the start of the models
        os.utime(victim)
        return repository(server)

    repository = Server._repository
    monkeypatch.setattr(Bundle, "verify", accept)
    monkeypatch.setattr(identity, "SETTLED", 0)
    with Server(damaged, layout="single"):
        pass
    monkeypatch.setattr(Server, "_repository", touch)
    with pytest.raises(BundleCorrupt, match=victim.name):
        Server(damaged, layout="single").start()


def test_a_hundred_failures_in_a_row_harm_nobody(client: Client, portrait: bytes) -> None:
    """With parallel steps in the ensemble, the server hung or died after a few of these: one of two steps failing."""
    for number in range(100):
        with pytest.raises(ImageUnreadable):
            client.generate(b"no image" * (number % 2), PROMPT, QUICK)
    assert client.generate(portrait, PROMPT, QUICK).mp4
