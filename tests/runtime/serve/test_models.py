"""The served models without a server: what they hand to each stage and what they make of its answer."""

from __future__ import annotations

import colorsys
import importlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from consisid_runtime.errors import (
    EmptyPrompt,
    ImageTooLarge,
    InvalidOption,
    NoFace,
    NotFinite,
    ServerTimeout,
    TierUnavailable,
    from_wire,
)
from consisid_runtime.events import Progress
from consisid_runtime.files.image_file import MAX_BYTES
from consisid_runtime.options import Options
from consisid_runtime.plan import Geometry, Plan, plan
from consisid_runtime.serve.ticket import Ticket
from consisid_runtime.signatures import DIT_PREPARE, DIT_STEP, PARSER, Signature
from consisid_runtime.stages.table import STAGES
from consisid_runtime.wire import (
    BUNDLE_VARIABLE,
    DEVICE_VARIABLE,
    PACKAGE_VARIABLE,
    TICKET,
    TICKETS_VARIABLE,
    VERIFIED_VARIABLE,
    WATERMARK_VARIABLE,
    Extras,
    read_parameters,
    write_parameters,
)

GEOMETRY = Geometry(frames=9, height=32, width=32, spatial=8, temporal=4, patch=2, fixed_size=False)
PROMPT = np.array([b"a man walks"], np.object_)
DTYPES = {"UINT8": np.uint8, "FP32": np.float32, "BYTES": np.object_}


@dataclass
class Tensor:
    label: str
    values: NDArray[Any]

    def name(self) -> str:
        return self.label

    def as_numpy(self) -> NDArray[Any]:
        return self.values


class BackendError(Exception):
    pass


class Failure(str):
    INTERNAL, INVALID_ARG = "INTERNAL", "INVALID_ARG"
    status: str

    def __new__(cls, text: str, status: str) -> Failure:
        made = super().__new__(cls, text)
        made.status = status
        return made


class FakeBundle:
    config = SimpleNamespace(geometry=GEOMETRY, transformer=SimpleNamespace(patch_size=2, is_kps=False))
    fingerprint = "abc"
    device = ""

    def __init__(self) -> None:
        self.accepted: list[str] = []
        self.warmed: list[dict[str, str]] = []
        self.loaded: dict[str, str] = {}

    def accept(self, handover: str) -> None:
        self.accepted.append(handover)

    def plan(self, options: Options) -> Plan:
        return plan(options, GEOMETRY)

    def signature(self, module: str) -> Signature:
        dims = {
            "text_length": 6,
            "text_dim": 8,
            "face_tokens": 4,
            "face_dim": 8,
            "channels": 2,
            "patch": 2,
            "crop": 512,
        }
        return {"dit_prepare": DIT_PREPARE, "dit_step": DIT_STEP, "parser": PARSER}[module].bind(dims)


class Request:
    def __init__(self, parameters: object = None, **inputs: NDArray[Any]) -> None:
        self._parameters = "" if parameters is None else json.dumps(parameters)
        self.inputs = inputs
        self.id = ""

    def request_id(self) -> str:
        return self.id

    def parameters(self) -> str:
        return self._parameters


class Face:
    def __init__(self, bundle: Any) -> None: ...

    def __call__(self, image: bytes, plan: Plan, *, trial: bool) -> Any:
        if image == b"blank":
            raise NoFace("no face")
        if image == b"long":
            raise NoFace("é" * 5000)
        if image == b"nan":
            raise NotFinite("NaN")
        if image == b"slow":
            raise ServerTimeout("no answer")
        if image == b"crash":
            raise RuntimeError("/secret")
        return SimpleNamespace(
            tokens=torch.ones(1, 4, 8),
            portrait=np.zeros((512, 512, 3), np.uint8),
            keypoints=np.zeros((5, 2), np.float32),
            embedding=np.zeros(512, np.float32),
            info={"faces": len(image)},
        )

    def embed(self, image: bytes) -> NDArray[np.float32]:
        return np.full(512, len(image), np.float32)


class Text:
    def __init__(self, bundle: Any) -> None: ...

    def __call__(self, prompt: str, plan: Plan) -> Any:
        return SimpleNamespace(states=torch.full((1 + plan.guided, 6, 8), float(len(prompt))), info={"prompt": prompt})


class Encode:
    def __init__(self, bundle: Any) -> None: ...

    def __call__(self, portrait: NDArray[Any], keypoints: NDArray[Any], plan: Plan) -> torch.Tensor:
        return torch.ones(1, 1, 4, 4, 4)


class Denoise:
    def __init__(self, bundle: Any) -> None:
        self.choices = {"attention": "plain"}

    def take(
        self, part: Any, text: torch.Tensor, face: torch.Tensor, moments: torch.Tensor, plan: Plan, progress: Progress
    ) -> Any:
        text += 1  # inputs are the stage's own, not the server's memory
        latents = torch.full((1, plan.latent_frames, 2, 4, 4), float(plan.options.seed))
        return latents, SimpleNamespace(x0=latents, generator=torch.zeros(8, dtype=torch.uint8))


class Decode:
    def __init__(self, bundle: Any, watermark: Any) -> None:
        bundle.loaded["vae_decoder_first"] = "loaded"
        self.fingerprint, self.watermark = bundle.fingerprint, watermark

    def marked_chunks(self, latents: torch.Tensor, plan: Plan) -> list[NDArray[np.uint8]]:
        return [np.full((plan.frames, plan.height, plan.width, 3), int(latents.max()), np.uint8)]


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    backend: Any = ModuleType("triton_python_backend_utils")
    backend.Tensor = Tensor
    backend.TritonError = Failure
    backend.TritonModelException = BackendError
    backend.InferenceResponse = lambda output_tensors, error=None: SimpleNamespace(
        tensors={t.name(): t.as_numpy() for t in output_tensors}, error=error
    )
    backend.get_input_tensor_by_name = lambda request, name: (
        Tensor(name, request.inputs[name]) if name in request.inputs else None
    )
    backend.Logger = SimpleNamespace(lines=[])
    backend.Logger.log_error = backend.Logger.lines.append
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", backend)
    stages = {
        "face": "FaceReader",
        "text": "TextReader",
        "encode": "Encoder",
        "denoise": "Denoiser",
        "decode": "Decoder",
    }
    for fake in (Face, Text, Encode, Denoise, Decode):
        stage: Any = ModuleType(fake.__name__.lower())
        setattr(stage, stages[stage.__name__], fake)
        module = "face.reader" if fake is Face else stage.__name__
        monkeypatch.setitem(sys.modules, f"consisid_runtime.stages.{module}", stage)
    mp4: Any = ModuleType("mp4")
    mp4.encode_beside = lambda chunks, shape, fps, marks: (
        np.concatenate(chunks),
        b"mp4 of %d at %d: %s" % (shape[0], fps, marks.tags["description"].encode()),
    )
    monkeypatch.setitem(sys.modules, "consisid_runtime.mp4", mp4)
    monkeypatch.setenv(BUNDLE_VARIABLE, "/bundle")
    monkeypatch.delitem(sys.modules, "consisid_runtime.serve.models", raising=False)
    loaded = importlib.import_module("consisid_runtime.serve.models")
    bundle = FakeBundle()
    monkeypatch.setattr(loaded, "keep_freed_memory", lambda: None)  # it would hold for the other tests too
    monkeypatch.setattr(loaded, "warm_up", lambda bundle: bundle.warmed.append(dict(bundle.loaded)))
    monkeypatch.setattr(loaded, "Bundle", SimpleNamespace(open=partial(_open, bundle)))
    yield loaded
    del sys.modules["consisid_runtime.serve.models"]


def _open(bundle: FakeBundle, path: str, *, device: str) -> FakeBundle:
    assert path == "/bundle"
    bundle.device = device
    return bundle


def model(serving: ModuleType, name: str, **instance: str) -> Any:
    made = serving.served(name)()
    made.initialize(instance)
    return made


def image(content: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(content, np.uint8)


def test_a_models_process_keeps_the_memory_that_it_frees(serving: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(serving, "keep_freed_memory", lambda: asked.append("kept"))
    model(serving, "decode")
    assert asked == ["kept"]


def test_parameters_and_back() -> None:
    options = Options(seed=7, negative_prompt="é", guidance=1.0, face_index="only", global_identity=False)
    assert write_parameters(Options()) == {}
    assert read_parameters(json.dumps(write_parameters(options, Extras(raw_frames=True)))) == (
        options,
        Extras(raw_frames=True),
    )
    assert read_parameters("") == (Options(), Extras())


def test_tritons_own_parameters_are_no_options() -> None:
    own = {"sequence_id": 3, "priority": 1, "timeout": 9, "binary_data_output": True, "triton_final_response": True}
    assert read_parameters(json.dumps(own | {"steps": 2})) == (Options(steps=2), Extras())


@pytest.mark.parametrize("text", ['{"stepz": 1}', '{"raw_frames": "yes"}', '{"guidance": NaN}', "{"])
def test_bad_parameters(text: str) -> None:
    with pytest.raises(InvalidOption):
        read_parameters(text)


def test_the_five_models_make_a_video(serving: ModuleType) -> None:
    tensors: dict[str, NDArray[Any]] = {
        "image": image(b"photo"),
        "prompt": np.array(["né".encode()], np.object_),
    }
    parameters = {"seed": 5, "fps": 4, "raw_frames": True}
    for stage in STAGES:
        inputs = {port.name: tensors[port.name] for port in stage.signature.inputs if not port.optional}
        for values in inputs.values():
            values.setflags(write=False)
        (answer,) = model(serving, stage.name).execute([Request(parameters, **inputs)])
        assert answer.error is None
        assert list(answer.tensors) == [port.name for port in stage.signature.outputs]
        for port in stage.signature.outputs:
            assert answer.tensors[port.name].dtype == DTYPES[port.dtype]
            assert answer.tensors[port.name].ndim == len(port.shape)
        tensors |= answer.tensors
    assert tensors["text_states"].shape == (2, 6, 8)
    said, facts = tensors["video"].tobytes().split(b": ", 1)
    assert said == b"mp4 of 9 at 4" and json.loads(facts)["bundle"] == "abc"
    assert tensors["frames"].shape == (9, 32, 32, 3)
    assert np.all(tensors["frames"] == 5)
    info = json.loads(tensors["info"][0])
    seconds = info.pop("seconds")
    assert list(seconds) == ["face", "text", "encode", "denoise", "decode"]
    assert info == {
        "seed": 5,
        "bundle": "abc",
        "options": asdict(Options(seed=5, fps=4, tier="exact", steps=50, guidance=6.0, frames=9, height=32, width=32)),
        "warnings": [],
        "face": {"faces": 5},
        "text": {"prompt": "né"},
        "denoise": {"computed_steps": 50, "guided_steps": 50, "attention": "plain"},
    }


@pytest.mark.parametrize("stage", [stage.name for stage in STAGES])
def test_a_stage_is_not_begun_for_a_caller_who_left(
    serving: ModuleType, stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TICKETS_VARIABLE, str(tmp_path))
    ticket = Ticket(tmp_path)
    ticket.cancel()
    (answer,) = model(serving, stage).execute([Request({TICKET: ticket.name})])
    assert answer.error.startswith("CANCELLED: the caller left")


def test_denoising_ends_at_the_step_in_which_a_caller_leaves(
    serving: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TICKETS_VARIABLE, str(tmp_path))
    ticket, steps = Ticket(tmp_path), []

    def denoise(*conditions: Any) -> torch.Tensor:
        *_, progress = conditions
        for step in range(5):
            steps.append(step)
            progress("denoise", step, 5)
            if step == 2:
                ticket.cancel()
        return torch.zeros(1, 3, 2, 4, 4)

    denoiser = SimpleNamespace(take=denoise)
    monkeypatch.setattr(sys.modules["consisid_runtime.stages.denoise"], "Denoiser", lambda bundle: denoiser)
    inputs = {"text_states": (2, 6, 8), "face_tokens": (1, 4, 8), "image_moments": (1, 1, 4, 4, 4)}
    tensors = {name: np.zeros(shape, np.float32) for name, shape in inputs.items()}
    (answer,) = model(serving, "denoise").execute([Request({TICKET: ticket.name}, **tensors)])
    assert answer.error.startswith("CANCELLED: ") and steps == [0, 1, 2, 3]


def decoded(serving: ModuleType) -> Any:
    infos = {
        f"{name}_info": np.array([b'{"seconds": 1}'], np.object_) for name in ("face", "text", "encode", "denoise")
    }
    latents = np.zeros((1, 3, 2, 4, 4), np.float32)
    (answer,) = model(serving, "decode").execute([Request(latents=latents, **infos)])
    return answer


def test_a_watermark_is_told(serving: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WATERMARK_VARIABLE, "colorsys:rgb_to_hsv")
    monkeypatch.setattr(colorsys, "__version__", "3", raising=False)
    answer = decoded(serving)
    told = {"name": "colorsys:rgb_to_hsv", "version": "3"}
    assert json.loads(answer.tensors["info"][0])["decode"] == {"watermark": told}
    assert json.loads(answer.tensors["video"].tobytes().split(b": ", 1)[1])["watermark"] == told


def test_a_missing_watermark_is_an_error_at_the_start(serving: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WATERMARK_VARIABLE, "no_such_module:mark")
    with pytest.raises(BackendError, match="INVALID_OPTION: the hook 'no_such_module:mark' cannot be loaded"):
        model(serving, "decode")
    model(serving, "face")


def test_raw_frames_only_when_asked_for(serving: ModuleType) -> None:
    answer = decoded(serving)
    assert answer.tensors["frames"].shape == (0, 32, 32, 3)


@pytest.mark.parametrize("stage", [stage.name for stage in STAGES])
@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"steps": 0}, InvalidOption),
        ({"frames": 10}, InvalidOption),
        ({"stepz": 1}, InvalidOption),
        ({"tier": "fast"}, TierUnavailable),
    ],
    ids=str,
)
def test_every_model_checks_every_option_before_it_works(
    serving: ModuleType, stage: str, parameters: dict[str, Any], error: type[Exception]
) -> None:
    (answer,) = model(serving, stage).execute([Request(parameters)])
    assert type(from_wire(answer.error)) is error
    assert answer.error.status == "INVALID_ARG"


@pytest.mark.parametrize(
    ("content", "prompt", "error"),
    [
        (b"photo", " \u200b\n", EmptyPrompt),
        (b"photo", "", EmptyPrompt),
        (bytes(MAX_BYTES + 1), "a man walks", ImageTooLarge),
    ],
    ids=["blank prompt", "empty prompt", "large image"],
)
def test_a_bad_request_ends_at_the_first_model_before_any_work(
    serving: ModuleType, monkeypatch: pytest.MonkeyPatch, content: bytes, prompt: str, error: type[Exception]
) -> None:
    face = model(serving, "face")
    monkeypatch.setattr(face, "loaded", lambda *_: pytest.fail("the stage was run"))
    (answer,) = face.execute([Request(image=image(content), prompt=np.array([prompt.encode()], np.object_))])
    assert type(from_wire(answer.error)) is error
    assert answer.error.status == "INVALID_ARG"


def test_the_face_model_embeds_alone_where_it_is_asked_to(serving: ModuleType) -> None:
    asked = Request(image=image(b"abc"), prompt=PROMPT, embed=np.ones(1, np.int64))
    (answer,) = model(serving, "face").execute([asked])
    assert answer.tensors.keys() == {"embedding", "face_info"}
    assert np.array_equal(answer.tensors["embedding"], np.full(512, 3, np.float32))


def test_one_stage_compares_nothing(serving: ModuleType) -> None:
    (answer,) = model(serving, "face").execute([Request({"similarity": True}, image=image(b"abc"), prompt=PROMPT)])
    assert answer.error.startswith("INVALID_OPTION: similarity is measured behind the door or by consisid_stream")


def test_one_bad_request_does_not_spoil_its_neighbours(serving: ModuleType) -> None:
    requests = [Request(image=image(content), prompt=PROMPT) for content in (b"a", b"blank", b"bb", b"crash", b"ccc")]
    answers = model(serving, "face").execute(requests)
    assert [bool(answer.error) for answer in answers] == [False, True, False, True, False]
    assert [json.loads(a.tensors["face_info"][0])["faces"] for a in answers if not a.error] == [1, 2, 3]
    assert (answers[1].error, answers[1].error.status) == ("NO_FACE: no face", "INVALID_ARG")
    assert answers[3].error.status == "INTERNAL"


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"blank", "INVALID_ARG"), (b"nan", "INTERNAL"), (b"slow", "INTERNAL"), (b"crash", "INTERNAL")],
)
def test_an_error_has_the_status_of_its_class_where_triton_has_it(
    serving: ModuleType, content: bytes, status: str
) -> None:
    (answer,) = model(serving, "face").execute([Request(image=image(content), prompt=PROMPT)])
    assert answer.error.status == status


def test_a_long_error_is_cut_by_bytes(serving: ModuleType) -> None:
    (answer,) = model(serving, "face").execute([Request(image=image(b"long"), prompt=PROMPT)])
    assert answer.error == "NO_FACE: " + "é" * 995


def test_models_of_another_package_than_the_launchers_refuse(
    serving: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PACKAGE_VARIABLE, "/elsewhere/consisid_runtime")
    with pytest.raises(BackendError, match=r"^SERVER_ERROR: the server was launched from /elsewhere"):
        model(serving, "decode")


def test_a_model_is_warm_before_it_is_ready(serving: ModuleType) -> None:
    assert model(serving, "decode").bundle.warmed == [{"vae_decoder_first": "loaded"}]


def test_a_model_believes_what_the_launcher_verified(serving: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VERIFIED_VARIABLE, raising=False)
    assert model(serving, "decode").bundle.accepted == []
    monkeypatch.setenv(VERIFIED_VARIABLE, "handed on")
    assert model(serving, "decode").bundle.accepted == ["handed on"]


@pytest.mark.parametrize("stage", [stage.name for stage in STAGES])
@pytest.mark.parametrize(
    ("launcher", "instance", "device"),
    [
        (None, {"model_instance_kind": "CPU", "model_instance_device_id": "0"}, "auto"),
        ("cuda:1", {"model_instance_kind": "CPU", "model_instance_device_id": "0"}, "cuda:1"),
        ("auto", {"model_instance_kind": "GPU", "model_instance_device_id": "3"}, "cuda:3"),
    ],
)
def test_a_model_computes_on_the_device_it_is_told(
    serving: ModuleType, monkeypatch: pytest.MonkeyPatch, stage: str, launcher: str | None, instance: Any, device: str
) -> None:
    monkeypatch.delenv(DEVICE_VARIABLE, raising=False)
    if launcher is not None:
        monkeypatch.setenv(DEVICE_VARIABLE, launcher)
    assert model(serving, stage, **instance).bundle.device == device


@pytest.mark.parametrize(
    ("identifier", "shown"), [("mine-7", "request mine-7"), ("", "without an id"), ("a man\nwalks", "without an id")]
)
def test_what_went_wrong_is_for_the_log_only(serving: ModuleType, identifier: str, shown: str) -> None:
    request = Request(image=image(b"crash"), prompt=PROMPT)
    request.id = identifier
    (answer,) = model(serving, "face").execute([request])
    reference = answer.error.rpartition(" ")[2]
    assert answer.error == f"INTERNAL: face failed; the server's log has it as error {reference}"
    (line,) = sys.modules["triton_python_backend_utils"].Logger.lines
    first, *trace = line.splitlines()
    assert first.startswith(f"face failed, error {reference}, request ") and first.endswith(shown)
    assert trace[-1] == "RuntimeError: /secret"


def test_a_process_ends_without_taking_apart_its_libraries(
    serving: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks: list[tuple[object, ...]] = []
    monkeypatch.setattr("atexit.register", lambda *hook: hooks.append(hook))
    model(serving, "text").finalize()
    assert hooks == [(os._exit, 0)]


def test_a_bundle_that_cannot_be_opened_says_so(serving: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from consisid_runtime.bundle import Bundle

    monkeypatch.setattr(serving, "Bundle", Bundle)
    with pytest.raises(BackendError, match=r"^BUNDLE_MISSING: no bundle at /bundle"):
        model(serving, "decode")
