"""Content credentials, judged by c2pa's own reader with an authority that is made here."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from consisid_runtime.errors import FileInaccessible, InvalidOption, MissingExtra, SigningFailed
from consisid_runtime.mp4 import decode_mp4, encode_mp4
from consisid_runtime.options import Options
from consisid_runtime.plan import Geometry, plan
from consisid_runtime.provenance.credentials import Signer, check, sign
from consisid_runtime.provenance.marks import SOURCE_TYPE, marks
from consisid_runtime.video import Video

WriteSigner = Callable[[Path, Any], None]


def video(frames: int) -> bytes:
    """An MP4 of nano's size."""
    noise = np.random.default_rng(0).integers(0, 255, (frames, 64, 96, 3), np.uint8)
    return encode_mp4(noise, 8, marks(plan(Options(), Geometry(frames, 64, 96, 8, 4, 2, fixed_size=False)), "f" * 64))


@pytest.fixture(scope="module")
def signer(signing_files: Path) -> Signer:
    return Signer.read(signing_files / "cert.pem", signing_files / "key.pem")


@pytest.fixture(scope="module")
def anchors(signing_files: Path) -> bytes:
    return (signing_files / "authority.pem").read_bytes()


@pytest.mark.parametrize("frames", [17, 49])
def test_a_signed_video(signer: Signer, anchors: bytes, frames: int) -> None:
    mp4, seconds = video(frames), []
    for _ in range(3):
        begin = time.perf_counter()
        signed = sign(mp4, signer)
        seconds.append(time.perf_counter() - begin)
    assert min(seconds) <= 0.1
    assert 0 < len(signed) - len(mp4) <= 8000
    found = check(signed, anchors)
    assert found is not None and (found.state, found.problems) == ("trusted", ())
    assert found.signer == "Signer, Tests" and found.generator.startswith("consisid-runtime ")
    assert found.source_types == (SOURCE_TYPE,)
    assert np.array_equal(decode_mp4(signed), decode_mp4(mp4))
    assert check(mp4, anchors) is None


def test_without_its_authority_a_signature_is_anybodys(
    signer: Signer, tmp_path: Path, write_signer: WriteSigner
) -> None:
    write_signer(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    signed = sign(video(9), signer)
    for anchors in (None, (tmp_path / "authority.pem").read_bytes()):
        found = check(signed, anchors)
        assert found is not None and (found.state, found.problems) == ("valid", ("signingCredential.untrusted",))


def test_one_flipped_bit_is_invalid(signer: Signer, anchors: bytes) -> None:
    signed = sign(video(9), signer)
    chance, at = random.Random(5), 0
    boxes: dict[bytes, list[range]] = {}
    while at < len(signed):
        size, kind = int.from_bytes(signed[at : at + 4], "big"), signed[at + 4 : at + 8]
        boxes.setdefault(kind, []).append(range(at, at + size))
        at += size
    (moov,), (media,), (credentials, xmp) = boxes[b"moov"], boxes[b"mdat"], boxes[b"uuid"]
    claim = signed.index(b"urn:c2pa:", signed.index(b"c2pa.claim"))
    places = [chance.choice(box) for box in (moov, media, xmp) for _ in range(40)]
    places += [signed.index(word) for word in (b"AI-generated", b"trainedAlgorithmicMedia", b"consisid-runtime")]
    places += [claim + 20, signed.index(b"Authority", credentials.start), signed.rindex(b"trainedAlgorithmicMedia")]
    states: Counter[str | None] = Counter()
    for place in places:
        changed = bytearray(signed)
        changed[place] ^= 1 << chance.randrange(8)
        found = check(bytes(changed), anchors)
        states[found and found.state] += 1
    assert states == {"invalid": len(places)}


def test_threads_may_sign_at_once(signer: Signer, anchors: bytes) -> None:
    mp4 = video(9)
    with ThreadPoolExecutor(4) as threads:
        signed = [*threads.map(lambda _: sign(mp4, signer), range(12))]
    assert len({*signed}) == 12, "every signature is another one"
    assert {found.state for made in signed if (found := check(made, anchors))} == {"trusted"}


@pytest.mark.parametrize("kind", ["p384", "p521", "ed25519", "rsa"])
def test_other_keys(tmp_path: Path, kind: str, write_signer: WriteSigner) -> None:
    keys: dict[str, Any] = {
        "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
    }
    write_signer(tmp_path, keys[kind]())
    signed = sign(video(9), Signer.read(tmp_path / "cert.pem", tmp_path / "key.pem"))
    found = check(signed, (tmp_path / "authority.pem").read_bytes())
    assert found is not None and found.state == "trusted"


def test_a_key_that_others_can_read_is_refused(signing_files: Path, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_bytes((signing_files / "key.pem").read_bytes())
    for mode in (0o644, 0o640, 0o602):
        key.chmod(mode)
        with pytest.raises(FileInaccessible, match="chmod 600"):
            Signer.read(signing_files / "cert.pem", key)
    key.chmod(0o400)
    signer = Signer.read(signing_files / "cert.pem", key)
    assert b"PRIVATE" in signer.key and "PRIVATE" not in repr(signer)


@pytest.mark.parametrize(
    ("certificate", "key", "problem"),
    [
        ("authority.pem", "key.pem", "do not belong together"),
        ("key.pem", "key.pem", "no PEM certificate"),
        ("cert.pem", "cert.pem", "no PEM certificate"),
        ("cert.pem", "curve.pem", "C2PA signs with"),
        ("tls.pem", "tls.key", "cannot sign"),
    ],
)
def test_what_cannot_sign_is_refused_before_a_video_is_made(
    signing_files: Path, tmp_path: Path, write_signer: WriteSigner, certificate: str, key: str, problem: str
) -> None:
    from consisid_runtime.serve.private import make_certificate

    for name in ("cert.pem", "key.pem", "authority.pem"):
        (tmp_path / name).write_bytes((signing_files / name).read_bytes())
    secret, public = make_certificate("localhost")  # it has no purpose that C2PA knows
    (tmp_path / "tls.key").write_bytes(secret)
    (tmp_path / "tls.pem").write_bytes(public)
    for name in tmp_path.iterdir():
        name.chmod(0o600)
    if key == "curve.pem":
        write_signer(tmp_path, ec.generate_private_key(ec.SECP256K1()))
        (tmp_path / "curve.pem").write_bytes((tmp_path / "key.pem").read_bytes())
        (tmp_path / "curve.pem").chmod(0o600)
    with pytest.raises(InvalidOption, match=problem):
        Signer.read(tmp_path / certificate, tmp_path / key)


@pytest.mark.parametrize("mp4", [b"", b"nothing", b"\0\0\0\x08mdat"])
def test_what_is_no_mp4_is_not_signed(signer: Signer, mp4: bytes) -> None:
    with pytest.raises(SigningFailed):
        sign(mp4, signer)


@pytest.mark.parametrize("cut", [100, 2000, 4000])
def test_a_part_of_a_signed_file_is_not_valid(signer: Signer, anchors: bytes, cut: int) -> None:
    found = check(sign(video(9), signer)[:cut], anchors)
    assert found is None or found.state == "invalid"


def test_anchors_that_are_none(signer: Signer) -> None:
    with pytest.raises(InvalidOption, match="no PEM certificates"):
        check(sign(video(9), signer), b"nonsense")


def test_a_video_object_is_signed_whole(signer: Signer) -> None:
    made = Video(mp4=video(9), fps=8, info={"seed": 1})
    signed = made.signed(signer)
    assert check(signed.mp4) is not None and check(made.mp4) is None
    assert (signed.fps, signed.info) == (8, {"seed": 1})


def test_absent_c2pa_is_explained(signer: Signer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(MissingExtra, match=r"consisid-runtime\[provenance\]"):
        sign(b"", signer)
