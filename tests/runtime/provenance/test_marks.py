"""What an MP4 says of its origin, read by ffmpeg and by the XMP specification's own rules."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import numpy as np
import pytest

import consisid_runtime
from consisid_runtime.mp4 import decode_mp4, encode_beside, encode_mp4, read_tags
from consisid_runtime.options import KEYPOINTS, SCHEDULERS, Options
from consisid_runtime.plan import Geometry, plan
from consisid_runtime.provenance.marks import Marks, facts_of, marks
from consisid_runtime.tiers import TIERS

GEOMETRY = Geometry(9, 32, 48, 8, 4, 2, fixed_size=False)
FRAMES = np.random.default_rng(3).integers(0, 255, (9, 32, 48, 3), np.uint8)
SECRET = "nothing like Ümlaut Street 7"


def made(**options: object) -> Marks:
    return marks(plan(Options.from_mapping(options), GEOMETRY), "f" * 64)


def test_a_reader_of_containers_finds_what_made_it() -> None:
    tags = read_tags(encode_mp4(FRAMES, 8, made(seed=7, steps=3)))
    tool = f"consisid-runtime {consisid_runtime.__version__}"
    assert tags["comment"] == f"AI-generated video (ConsisID, {tool})" and tags["encoder"] == tool
    facts = facts_of(tags)
    assert facts is not None and facts == json.loads(tags["description"])
    options = facts.pop("options")
    assert facts == {"ai_generated": True, "model": "ConsisID", "runtime": tool, "bundle": "f" * 64}
    assert (options["seed"], options["steps"], options["guidance"], options["frames"]) == (7, 3, 6.0, 9)
    assert "creation_time" not in tags


def test_xmp_names_iptcs_source_type() -> None:
    mp4 = encode_mp4(FRAMES, 8, made())
    at = mp4.rindex(bytes.fromhex("be7acfcb97a942e89c71999491e3afac")) - 8
    assert int.from_bytes(mp4[at : at + 4], "big") == len(mp4) - at, "a whole box, at the end"
    packet = mp4[at + 24 :].decode()
    assert read_tags(mp4)["xmp"] == packet
    (about,) = ElementTree.fromstring(packet).iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    iptc = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
    assert about.get(f"{iptc}DigitalSourceType") == (
        "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    )
    assert (about.get(f"{iptc}AISystemUsed"), about.get(f"{iptc}AISystemVersionUsed")) == ("ConsisID", "f" * 64)


def test_no_words_of_the_caller_are_in_the_file() -> None:
    """A new option that is text has to be looked at: these are what options may say."""
    private = encode_mp4(FRAMES, 8, made(negative_prompt=SECRET))
    assert private == encode_mp4(FRAMES, 8, made())
    assert SECRET.encode() not in private and SECRET.encode("utf-16-le") not in private
    facts = facts_of(made(face_index="only").tags)
    assert facts is not None
    assert {text for text in facts["options"].values() if isinstance(text, str)} <= {
        *SCHEDULERS,
        *KEYPOINTS,
        *TIERS,
        "only",
    }


@pytest.mark.parametrize("count", [9, 201])
def test_marks_leave_the_index_in_front_and_the_frames_as_they_are(count: int) -> None:
    frames = np.resize(FRAMES, (count, 32, 48, 3))
    plain = encode_mp4(frames, 8)
    long = made()
    long = Marks({**long.tags, "description": "x" * 60_000}, long.xmp)
    for said in (made(), long):
        marked = encode_mp4(frames, 8, said)
        assert marked.index(b"moov") < marked.index(b"mdat")
        assert marked == encode_beside([frames], frames.shape, 8, said)[1]
    assert np.array_equal(decode_mp4(marked), decode_mp4(plain))


@pytest.mark.parametrize("text", ["", "words", "[" * 100_000, '{"ai_generated": 1}', "[]", '{"model": "ConsisID"}'])
def test_the_description_of_another_program_is_none_of_ours(text: str) -> None:
    assert facts_of({"description": text}) is None
    assert facts_of({}) is None


def test_what_is_no_video_is_said() -> None:
    with pytest.raises(ValueError, match="no video file"):
        read_tags(b"nothing")
