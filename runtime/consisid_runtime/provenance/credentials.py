"""Content credentials (C2PA): a signature over a finished MP4, inside it. Imports c2pa only where it is used.

Signing is outside the promise of same bytes: every signature differs. It covers the file without its `ftyp` and `free`
boxes, as C2PA wants it, and without the padding of the credentials themselves; any other bit that changes makes it
invalid.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import consisid_runtime
from consisid_runtime.errors import InvalidOption, MissingExtra, SigningFailed
from consisid_runtime.files.small_file import read_small
from consisid_runtime.provenance.marks import RUNTIME, SOURCE_TYPE

_FORMAT = "video/mp4"
_TRIAL = b"\0\0\0\x10ftypisom\0\0\2\0\0\0\0\x08mdat"
"""The least MP4 that can be signed."""
_OFFLINE = {"ocsp_fetch": False, "remote_manifest_fetch": False}
"""A file may name an address; nothing is fetched from it."""
_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


@dataclass(frozen=True, slots=True)
class Signer:
    """A certificate and its key, with which a signature was tried.

    Attributes:
        chain: PEM certificates, the signer's first, then each one's issuer.
        key: its PEM key, unencrypted.
        algorithm: C2PA's name of it.
    """

    chain: bytes = field(repr=False)
    key: bytes = field(repr=False)
    algorithm: str

    @classmethod
    def read(cls, certificate: Path, key: Path) -> Signer:
        """From PEM files; that of the key is readable for its owner alone.

        Raises `FileInaccessible`, `InvalidOption` for what cannot sign as C2PA wants it, `MissingExtra`.
        """
        chain, secret = read_small(certificate), read_small(key, private=True)
        signer = cls(chain, secret, _algorithm(chain, secret, f"{certificate} and {key}"))
        try:
            sign(_TRIAL, signer)
        except SigningFailed as error:
            raise InvalidOption(f"{certificate} and {key} cannot sign: {error}") from error
        return signer


def sign(mp4: bytes, signer: Signer) -> bytes:
    """The MP4 with content credentials: made by this program, by a trained model. No time stamp of an authority.

    Takes about 5 ms, and adds about 4 kB; may run in any thread. Raises `SigningFailed`, `MissingExtra`.
    """
    c2pa = _c2pa()
    agent = {"name": RUNTIME, "version": consisid_runtime.__version__}
    created = {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE, "softwareAgent": agent}
    claim = {
        "claim_generator_info": [agent],
        "format": _FORMAT,
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [created]}}],
    }
    info = c2pa.C2paSignerInfo(
        alg=signer.algorithm.encode(), sign_cert=signer.chain, private_key=signer.key, ta_url=None
    )
    signed = io.BytesIO()
    try:
        with c2pa.Signer.from_info(info) as native, c2pa.Builder(claim) as builder:
            builder.sign(native, _FORMAT, io.BytesIO(mp4), signed)
    except c2pa.C2paError as error:
        raise SigningFailed(f"c2pa refused: {error}") from error
    return signed.getvalue()


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a signed MP4 says, and whether it may be believed.

    Attributes:
        state: "trusted" (unchanged, by a signer whom an anchor vouches for), "valid" (unchanged, by anybody) or
            "invalid".
        problems: C2PA's codes of what is wrong.
        signer: common name and organisation of the certificate, as far as it has them.
        generator: the program, with its version.
        source_types: of the actions; `marks.SOURCE_TYPE` where a model made it.
    """

    state: str
    problems: tuple[str, ...]
    signer: str
    generator: str
    source_types: tuple[str, ...]


def check(mp4: bytes, anchors: bytes | None = None) -> Credentials | None:
    """The newest credentials in an MP4; None where it has none.

    Args:
        anchors: PEM certificates of authorities to trust; None trusts nobody.

    Raises `InvalidOption` for anchors that are none, `MissingExtra`.
    """
    c2pa = _c2pa()
    settings: dict[str, Any] = {"verify": _OFFLINE}
    if anchors is not None:
        settings["trust"] = {"trust_anchors": _certificates(anchors)}
    with c2pa.Settings.from_dict(settings) as made, c2pa.Context(made) as context:
        try:
            reader = c2pa.Reader.try_create(_FORMAT, io.BytesIO(mp4), context=context)
        except c2pa.C2paError as error:
            return Credentials("invalid", (str(error)[:200],), "", "", ())
        if reader is None:
            return None
        with reader:
            found = json.loads(reader.json())
    try:
        return _read(found)
    except (KeyError, TypeError, AttributeError):
        return Credentials("invalid", ("the manifest is incomplete",), "", "", ())


def _certificates(pem: bytes) -> str:
    from cryptography import x509

    try:
        x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise InvalidOption(f"these are no PEM certificates to trust: {error}") from error
    return pem.decode()


def _read(found: dict[str, Any]) -> Credentials:
    manifest = found["manifests"][found["active_manifest"]]
    signature = manifest.get("signature_info", {})
    generators = [" ".join(filter(None, (i.get("name"), i.get("version")))) for i in manifest["claim_generator_info"]]
    actions = [
        action
        for assertion in manifest.get("assertions", [])
        if assertion["label"].startswith("c2pa.actions")
        for action in assertion["data"]["actions"]
    ]
    return Credentials(
        state=str(found["validation_state"]).lower(),
        problems=tuple(status["code"] for status in found.get("validation_status", [])),
        signer=", ".join(filter(None, (signature.get("common_name"), signature.get("issuer")))),
        generator=", ".join(generators),
        source_types=tuple(a["digitalSourceType"] for a in actions if "digitalSourceType" in a),
    )


def _algorithm(chain: bytes, key: bytes, files: str) -> str:
    """Raises `InvalidOption` where these are no PEM certificate with its unencrypted key, or of no kind of C2PA's."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError as missing:
        raise _missing() from missing
    try:
        private, certificates = load_pem_private_key(key, None), x509.load_pem_x509_certificates(chain)
    except (ValueError, TypeError) as error:
        raise InvalidOption(f"{files} are no PEM certificate with its unencrypted key: {error}") from error
    if certificates[0].public_key() != private.public_key():
        raise InvalidOption(f"{files} do not belong together; the signer's certificate is the first of its file")
    if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in _CURVES:
        return _CURVES[private.curve.name]
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(private, rsa.RSAPrivateKey):
        return "ps256"
    raise InvalidOption("C2PA signs with RSA, Ed25519, or the curves P-256, P-384 and P-521; make another key")


def _c2pa() -> ModuleType:
    try:
        import c2pa
    except ImportError as missing:
        raise _missing() from missing
    return c2pa  # type: ignore[no-any-return]


def _missing() -> MissingExtra:
    return MissingExtra("content credentials need c2pa-python: pip install 'consisid-runtime[provenance]'")
