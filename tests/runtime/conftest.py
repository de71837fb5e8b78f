"""A model repository with the real ensemble's ports and no network in it, and a Triton server on it."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from consisid_runtime.serve.repository import ensemble_config, stage_config
from consisid_runtime.serve.tritonserver import TritonServer
from consisid_runtime.signatures import ENSEMBLE, STREAM, Port, Signature

if TYPE_CHECKING:
    from consisid_runtime.door.door import Door

_IMAGE, _PROMPT = ENSEMBLE.inputs
_VIDEO, _RAW, _INFO = ENSEMBLE.outputs
_PASSED = Port("passed", "UINT8", ("bytes",))
_SEEN = Port("seen", "BYTES", (1,))

# `video` is the image's bytes; `info` says which options each model saw; the prompt chooses what goes wrong.
_STAGES = (
    Signature("first", (_IMAGE,), (_PASSED, _SEEN)),
    Signature("second", (_PASSED, _SEEN, _PROMPT), (_VIDEO, _RAW, _INFO)),
)
_COMMON = """
import dataclasses, json, os, sys, time
import numpy as np
import consisid_runtime
from consisid_runtime.errors import BundleCorrupt, NoFace
from consisid_runtime.plan import Geometry, plan
from consisid_runtime.serve.models import Model
from consisid_runtime.signatures import Port, Signature

def texts(value):
    return np.array([json.dumps(value).encode()], dtype=np.object_)

def video_of(image, prompt, first, plan, raw_frames, **request):
    frames = np.arange(plan.frames * plan.height * plan.width * 3, dtype=np.uint8)
    frames = frames.reshape(plan.frames, plan.height, plan.width, 3)
    info = {
        "first": first,
        "second": dataclasses.asdict(plan.options),
        "prompt": prompt,
        "python": [sys.version, sys.prefix, np.__file__],
        "package": os.path.realpath(consisid_runtime.__file__),
        "folder": os.environ.get("TINY_FOLDER"),
        "seconds": {},
        **request,
    }
    return {"video": image, "frames": frames if raw_frames else frames[:0], "info": texts(info)}

def check_prompt(prompt):
    if prompt == "no face":
        raise NoFace("no face in the 512×512 image; send a portrait")
    if prompt == "long":
        raise NoFace("x" * 100_000)
    if prompt == "crash":
        raise RuntimeError("/secret/path")

class Tiny(Model):
    def load(self):
        if os.environ.get("TINY_LOAD") == self.signature.name:
            raise BundleCorrupt("transformer.onnx in bundle changed after the export")
        sizes = Geometry(frames=49, height=480, width=720, spatial=8, temporal=4, patch=2, fixed_size=False)
        return lambda options: plan(options, sizes)
"""
_BODIES = {
    "first": """
    def run(self, inputs, plan, progress, extras):
        return {"passed": inputs["image"], "seen": texts(dataclasses.asdict(plan.options))}
""",
    "second": """
    def run(self, inputs, plan, progress, extras):
        prompt = inputs["prompt"][0].decode()
        check_prompt(prompt)
        if prompt.startswith("sleep"):
            end = time.monotonic() + float(prompt.split()[1])
            while time.monotonic() < end:
                time.sleep(0.01)
                progress("second", 0, 1)
        return video_of(inputs["passed"], prompt, json.loads(inputs["seen"][0]), plan, extras.raw_frames)
""",
}

# Urgent requests first; `which` tells the request's id, `events N` sends N events at once, `sleep S` an event each
# 50 ms, `hang S` hears nothing.
_STREAM = f"""{_COMMON}
import threading
import triton_python_backend_utils as pb_utils
from consisid_runtime.errors import CheckpointRefused
from consisid_runtime.events import Event
from consisid_runtime.serve.models import failure
from consisid_runtime.serve.ticket import take_look
from consisid_runtime.wire import URGENT, parse_parameters, read_options

def bytes_of(content):
    return np.frombuffer(content, np.uint8)

class TritonPythonModel:
    def initialize(self, args):
        self.urgent, self.device = 0, threading.Condition()

    def execute(self, requests):
        for request in requests:
            names = "image", "prompt", "checkpoint"
            tensors = {{name: pb_utils.get_input_tensor_by_name(request, name) for name in names}}
            inputs = {{name: tensor.as_numpy() for name, tensor in tensors.items() if tensor is not None}}
            inputs["id"] = request.request_id()
            work = inputs, parse_parameters(request.parameters()), request.get_response_sender()
            threading.Thread(target=self.answer, args=work, daemon=True).start()

    def answer(self, inputs, parameters, sender):
        urgent = parameters.pop(URGENT)
        with self.device:
            self.urgent += urgent
        try:
            for tensors in self.run(inputs, parameters, urgent):
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor(*pair) for pair in tensors.items()]))
        except Exception as error:
            bare = pb_utils.InferenceResponse(error=pb_utils.TritonError(f"failed: {{error!r}}"))
            sender.send(bare if isinstance(error, OSError) else failure(error, "consisid_stream", ""))
        with self.device:
            self.urgent -= urgent
            self.device.notify_all()
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def run(self, inputs, parameters, urgent):
        look = take_look(parameters)
        options, extras = read_options(parameters)
        if extras.action == "trial":
            yield {{"event": np.array([Event("face", 0, 1).to_json().encode()], object)}}
            yield {{"info": texts({{"bundle": "tiny", "seconds": {{"face": 0.25}}}})}}
            return
        sizes = Geometry(frames=49, height=480, width=720, spatial=8, temporal=4, patch=2, fixed_size=False)
        found, prompt = plan(options, sizes), inputs["prompt"][0].decode()
        what, _, number = prompt.partition(" ")
        named = {{"request": inputs["id"]}} if what == "which" else {{}}
        count = {{"events": int, "sleep": lambda text: int(float(text) * 20)}}.get(what, lambda text: 0)(number)
        check_prompt(prompt)
        if what == "untyped":
            raise OSError("as one of Triton server's own")
        if what == "hang":
            time.sleep(float(number))
        checkpoint = inputs.get("checkpoint", bytes_of(b"")).tobytes()
        if checkpoint == b"bad":
            raise CheckpointRefused("this is no checkpoint")
        for i in range(int(checkpoint or 0), count):
            with self.device:
                self.device.wait_for(lambda: urgent or not self.urgent)
            look()
            text = Event("denoise", i + 1, count, None, 0.05 * (count - i)).to_json()
            event = {{"event": np.array([b"none" if number == "13" else text.encode()], object)}}
            if extras.previews:
                event["preview"] = bytes_of(b"JPEG")
            if extras.checkpoint_seconds:
                event["checkpoint"] = bytes_of(b"%d" % (i + 1))
            yield event
            time.sleep(0.05 if what == "sleep" else 0)
        look()
        if what != "nothing":
            first = dataclasses.asdict(found.options)
            yield video_of(inputs["image"], prompt, first, found, extras.raw_frames, **named)
"""


@pytest.fixture(scope="session")
def tiny_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    for stage in _STAGES:
        version = folder / stage.name / "1"
        version.mkdir(parents=True)
        (folder / stage.name / "config.pbtxt").write_text(stage_config(stage))
        (version / "model.py").write_text(
            f"{_COMMON}\nclass TritonPythonModel(Tiny):\n    signature = {stage!r}\n{_BODIES[stage.name]}"
        )
    (folder / ENSEMBLE.name / "1").mkdir(parents=True)
    (folder / STREAM.name / "1").mkdir(parents=True)
    (folder / STREAM.name / "config.pbtxt").write_text(
        stage_config(STREAM).replace("dynamic_batching { default_queue_policy", "#")
        + "model_transaction_policy { decoupled: true }\n"
    )
    (folder / STREAM.name / "1" / "model.py").write_text(_STREAM)
    (folder / ENSEMBLE.name / "config.pbtxt").write_text(ensemble_config(ENSEMBLE, _STAGES))
    return folder


@pytest.fixture(scope="session")
def write_signer() -> Callable[[Path, Any], None]:
    """Writes what `signing_files` has, with an authority of its own, for a private key."""
    return _write_signer


@pytest.fixture(scope="session")
def signing_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of `cert.pem` (a signer's certificate and its authority's), `key.pem` and `authority.pem`."""
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = tmp_path_factory.mktemp("signing")
    _write_signer(folder, ec.generate_private_key(ec.SECP256R1()))
    return folder


def _write_signer(folder: Path, key: Any) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    ca_key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)

    def certify(name: str, public: Any, *, authority: bool) -> bytes:
        subject, issuer = (
            x509.Name(
                [
                    x509.NameAttribute(x509.NameOID.COMMON_NAME, text),
                    x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Tests"),
                ]
            )
            for text in (name, "Authority")
        )
        usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False)
        usage |= {"digital_signature": True, "key_cert_sign": authority, "crl_sign": authority}
        made = (
            x509.CertificateBuilder(issuer, subject, public, x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**usage, encipher_only=False, decipher_only=False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        )
        if not authority:
            purpose = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.EMAIL_PROTECTION])
            made = made.add_extension(purpose, critical=True)
        return made.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ca = certify("Authority", ca_key.public_key(), authority=True)
    (folder / "authority.pem").write_bytes(ca)
    (folder / "cert.pem").write_bytes(certify("Signer", key.public_key(), authority=False) + ca)
    (folder / "key.pem").touch(0o600)
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))


@pytest.fixture(scope="session")
def tiny_server(tiny_repository: Path) -> Iterator[TritonServer]:
    with TritonServer(tiny_repository, ready_timeout=60) as server:
        yield server


@pytest.fixture(scope="session")
def tiny_door(tiny_repository: Path) -> Iterator[Door]:
    from consisid_runtime.door.door import Door

    with Door(TritonServer(tiny_repository, private=True, ready_timeout=60)) as door:
        yield door
