"""Options are validated on construction, sizes by `plan`; each message names the value and what is possible."""

import copy
import dataclasses
import inspect
import json
import math
import pickle
import time
from typing import Any

import numpy as np
import pytest

from consisid_runtime.errors import EmptyPrompt, InvalidOption
from consisid_runtime.options import MAX_PROMPT, Options, check_prompt
from consisid_runtime.plan import Geometry, plan
from consisid_runtime.wire import read_parameters, write_parameters

FULL = Geometry(frames=49, height=480, width=720, spatial=8, temporal=4, patch=2, fixed_size=False)
LEARNED = Geometry(frames=49, height=480, width=720, spatial=8, temporal=4, patch=2, fixed_size=True)

BAD: list[tuple[dict[str, Any], str]] = [
    ({"steps": 0}, "steps must be a whole number from 1 to 1000, got 0"),
    ({"steps": 1001}, "got 1001"),
    ({"steps": 2.5}, "got 2.5"),
    ({"steps": True}, "got True"),
    ({"seed": -1}, "seed must be a whole number from 0"),
    ({"seed": 2**63}, "seed must be"),
    ({"guidance": math.nan}, "guidance must be a finite number from 0 to 100, got nan"),
    ({"guidance": math.inf}, "got inf"),
    ({"guidance": "6"}, "got '6'"),
    ({"guidance": -1.0}, "guidance must be from 0 to 100"),
    ({"scheduler": "euler"}, "scheduler must be one of dpm, ddim, got 'euler'"),
    ({"keypoints": "face"}, "keypoints must be one of crop, source"),
    ({"face_index": "first"}, 'face_index must be a whole number or "only"'),
    ({"face_index": -1}, "face_index must be a whole number from 0"),
    ({"face_scale": -0.1}, "face_scale must be from 0 to 10"),
    ({"global_identity": 1}, "global_identity must be true or false, got 1"),
    ({"negative_prompt": 3}, "negative_prompt must be text, got 3"),
    ({"fps": 0}, "fps must be"),
    ({"frames": 0}, "frames must be"),
    ({"height": "480"}, "height must be"),
    ({"guidance": 10**400}, "guidance must be from 0 to 100, got 1000"),
    ({"face_scale": 10**5000}, "got a very large int"),
    ({"seed": 10**5000}, "got a very large int"),
    ({"scheduler": ["dpm"]}, "scheduler must be one of dpm, ddim, got ['dpm']"),
    ({"keypoints": np.array(["crop", "source"])}, "keypoints must be one of"),
    ({"face_index": np.array([0, 1])}, "face_index must be a whole number"),
    ({"guidance": np.array([6.0, 7.0])}, "guidance must be a finite number"),
    ({"global_identity": np.array([True, False])}, "global_identity must be true or false"),
    ({"negative_prompt": "dark\0blurred"}, "negative_prompt must be text, got U+0000 at character 4"),
    ({"negative_prompt": "\ud83d"}, "got U+D83D at character 0"),
    ({"negative_prompt": ["x" * 1000]}, "…"),
]


@pytest.mark.parametrize(("values", "message"), BAD, ids=[*map(str, range(len(BAD)))])
def test_an_invalid_value_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        Options(**values)
    assert message in str(caught.value)


def test_an_unknown_option_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidOption, match="unknown option 'guidence'; did you mean 'guidance'"):
        Options.from_mapping({"guidence": 3.0})
    with pytest.raises(InvalidOption, match="known options: negative_prompt, seed"):
        Options.from_mapping({"zzz": 1})
    with pytest.raises(InvalidOption, match="unknown option 5"):
        Options.from_mapping({5: 1})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("guidance_scale", "guidance"),
        ("num_inference_steps", "steps"),
        ("num_frames", "frames"),
        ("use_dynamic_cfg", "dynamic_guidance"),
        ("generator", "seed"),
        ("negative_prompt_embeds", "negative_prompt"),
        ("kps_cond", "keypoints"),
        ("guidence_scale", "guidance"),
        ("numInferenceSteps", "steps"),
        ("face-index", "face_index"),
        ("Seed", "seed"),
        ("stpes", "steps"),
    ],
)
def test_names_of_diffusers_and_typing_errors_name_the_option(name: str, meant: str) -> None:
    """To the constructor as to a request's parameters."""
    for make in (Options.from_mapping, lambda values: Options(**values), lambda v: read_parameters(json.dumps(v))):
        with pytest.raises(InvalidOption, match=f"unknown option '{name}'; did you mean '{meant}'"):
            make({name: 1})


def test_a_long_name_is_refused_at_once() -> None:
    begin = time.process_time()
    with pytest.raises(InvalidOption, match="known options"):
        Options.from_mapping({"guidance_scale" * 10**6: 1})
    assert time.process_time() - begin < 0.5


def test_the_constructor_keeps_its_signature_and_copies() -> None:
    assert list(inspect.signature(Options).parameters) == [field.name for field in dataclasses.fields(Options)]
    chosen = Options(seed=5, face_index="only")
    assert pickle.loads(pickle.dumps(chosen)) == copy.deepcopy(chosen) == chosen
    assert dataclasses.replace(chosen, seed=6) == Options(seed=6, face_index="only")


NUMBERS: list[tuple[str, Any, Any]] = [
    *(("seed", kind(3), 3) for kind in (np.int8, np.uint8, np.int16, np.int32, np.int64, np.uint64)),
    *(("guidance", kind(2.5), 2.5) for kind in (np.float16, np.float32, np.float64, np.longdouble)),
    ("guidance", np.int64(3), 3),
    ("face_scale", np.array(0.5, np.float32), 0.5),
    ("steps", np.array(7), 7),
    ("frames", np.int32(9), 9),
    ("height", np.int64(480), 480),
    ("width", np.uint16(720), 720),
    ("fps", np.int64(12), 12),
    ("face_index", np.int64(1), 1),
    ("dynamic_guidance", np.bool_(True), True),
    ("global_identity", np.array(False), False),
]


@pytest.mark.parametrize(("name", "value", "expected"), NUMBERS, ids=[f"{n}-{v.dtype}" for n, v, _ in NUMBERS])
def test_numbers_of_numpy_are_pythons_afterwards(name: str, value: Any, expected: Any) -> None:
    options = Options(**{name: value})
    assert getattr(options, name) == expected and type(getattr(options, name)) is type(expected)
    assert options == Options(**{name: expected})
    json.dumps(dataclasses.asdict(options))
    assert read_parameters(json.dumps(write_parameters(options)))[0] == options


@pytest.mark.parametrize("value", [np.str_("3"), np.array("3"), np.array([3]), np.complex64(3), np.float64(3), b"3"])
def test_what_is_no_number_stays_refused(value: Any) -> None:
    with pytest.raises(InvalidOption, match="seed must be a whole number"):
        Options(seed=value)


@pytest.mark.parametrize("prompt", [b"bytes", None, "a man\0walks", "half a pair \ud83d"])
def test_a_prompt_that_cannot_be_sent_is_refused(prompt: object) -> None:
    with pytest.raises(InvalidOption, match="prompt must be text"):
        check_prompt(prompt)
    assert check_prompt("a man \U0001f600") == "a man \U0001f600"


def test_a_plan_needs_an_options_object() -> None:
    with pytest.raises(InvalidOption, match="options must be an Options object, got dict"):
        plan({}, FULL)  # type: ignore[arg-type]


def test_a_mapping_contains_only_the_changed_options() -> None:
    changed = Options(seed=7, face_index="only", local_identity=False, frames=9)
    assert changed.to_mapping() == {"seed": 7, "face_index": "only", "local_identity": False, "frames": 9}
    assert Options.from_mapping(changed.to_mapping()) == changed
    assert Options().to_mapping() == {}


def test_sizes_default_to_those_of_the_checkpoint() -> None:
    resolved = plan(Options(), FULL)
    assert (resolved.frames, resolved.height, resolved.width) == (49, 480, 720)
    assert (resolved.latent_frames, resolved.rows, resolved.columns) == (13, 30, 45)


@pytest.mark.parametrize(("guidance", "guided"), [(6.0, True), (1.0, False), (0.5, False), (1.01, True)])
def test_guidance_applies_above_a_scale_of_one(guidance: float, guided: bool) -> None:
    assert plan(Options(guidance=guidance), FULL).guided is guided


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"frames": 48}, r"frames must be 8k \+ 1, k ≥ 1, got 48; nearest: 41 or 49"),
        ({"frames": 1}, "nearest: 9 or 17"),
        ({"height": 470}, "height must be a multiple of 16, got 470; nearest: 464 or 480"),
        ({"width": 8}, "nearest: 16 or 32"),
        ({"frames": 8 * 1000 + 1}, "frames may be at most 392"),
        ({"width": 720 * 5}, "width may be at most 2880"),
    ],
)
def test_unsupported_sizes_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        plan(Options(**values), FULL)


def test_learned_positions_fix_height_and_width_only() -> None:
    assert plan(Options(frames=17), LEARNED).latent_frames == 5
    with pytest.raises(InvalidOption, match="learned positions for 480×720"):
        plan(Options(height=496), LEARNED)


@pytest.mark.parametrize("prompt", ["", "  \n\t\u3000", "\u200b\u200d\ufeff \u202e\x07"])
def test_a_prompt_with_nothing_visible_is_empty(prompt: str) -> None:
    with pytest.raises(EmptyPrompt, match="describe"):
        check_prompt(prompt)


@pytest.mark.parametrize(
    ("prompt", "message"), [(None, "must be text"), ("a\0b", r"U\+0000 at character 1"), ("\ud800", r"U\+D800")]
)
def test_a_prompt_that_is_no_text_is_refused(prompt: object, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        check_prompt(prompt)


@pytest.mark.parametrize("character", ["x", " ", "\u200b", "日", "😀"])
def test_a_prompt_has_a_bound_in_bytes(character: str) -> None:
    """Ten megabytes are refused at once, whatever they consist of."""
    count = MAX_PROMPT // len(character.encode())
    fits, begin = "x" + character * (count - 1), time.process_time()
    assert check_prompt(fits) == fits and Options(negative_prompt=fits).negative_prompt == fits
    for text in (character * (count + 1), character * 10**7):
        with pytest.raises(InvalidOption, match="prompt may have at most 65536 bytes of UTF-8, got"):
            check_prompt(text)
        with pytest.raises(InvalidOption, match="negative_prompt may have at most 65536 bytes"):
            Options(negative_prompt=text)
    assert time.process_time() - begin < 0.3
