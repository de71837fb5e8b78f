"""Options are validated on construction, sizes by `plan`; each message names the value and what is possible."""

import math
from typing import Any

import numpy as np
import pytest

from consisid_runtime.errors import EmptyPrompt, InvalidOption
from consisid_runtime.options import Geometry, Options, check_prompt, plan

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
