"""A model repository with the real ensemble's ports and no network in it, and a Triton server on it."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from consisid_runtime.serve.repository import ensemble_config, stage_config
from consisid_runtime.serve.tritonserver import TritonServer
from consisid_runtime.signatures import ENSEMBLE, Port, Signature

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

class Tiny(Model):
    def load(self):
        if os.environ.get("TINY_LOAD") == self.signature.name:
            raise BundleCorrupt("transformer.onnx in bundle changed after the export")
        sizes = Geometry(frames=49, height=480, width=720, spatial=8, temporal=4, patch=2, fixed_size=False)
        return lambda options: plan(options, sizes)
"""
_BODIES = {
    "first": """
    def run(self, inputs, plan, progress, *, raw_frames):
        return {"passed": inputs["image"], "seen": texts(dataclasses.asdict(plan.options))}
""",
    "second": """
    def run(self, inputs, plan, progress, *, raw_frames):
        prompt = inputs["prompt"][0].decode()
        if prompt == "no face":
            raise NoFace("no face in the 512×512 image; send a portrait")
        if prompt == "long":
            raise NoFace("x" * 100_000)
        if prompt == "crash":
            raise RuntimeError("/secret/path")
        if prompt.startswith("sleep"):
            end = time.monotonic() + float(prompt.split()[1])
            while time.monotonic() < end:
                time.sleep(0.01)
                progress("second", 0, 1)
        frames = np.arange(plan.frames * plan.height * plan.width * 3, dtype=np.uint8)
        frames = frames.reshape(plan.frames, plan.height, plan.width, 3)
        info = {
            "first": json.loads(inputs["seen"][0]),
            "second": dataclasses.asdict(plan.options),
            "prompt": prompt,
            "python": [sys.version, sys.prefix, np.__file__],
            "package": os.path.realpath(consisid_runtime.__file__),
            "folder": os.environ.get("TINY_FOLDER"),
            "seconds": {},
        }
        return {"video": inputs["passed"], "frames": frames if raw_frames else frames[:0], "info": texts(info)}
""",
}


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
