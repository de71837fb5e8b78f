"""Values on their way from the server to a stage, and what `info` warns of."""

from typing import Any

import numpy as np
import pytest

from consisid_runtime.options import Options
from consisid_runtime.plan import Geometry, plan
from consisid_runtime.signatures import Port
from consisid_runtime.wire import array_of, describe, of_backend, value_of

PLAN = plan(Options(), Geometry(9, 32, 32, 8, 4, 2, fixed_size=False))


def warnings(face: dict[str, Any], text: dict[str, Any]) -> list[str]:
    return list(describe(PLAN, "abc", {"face": face | {"seconds": 0.1}, "text": text | {"seconds": 0.2}})["warnings"])


@pytest.mark.parametrize(
    ("face", "text", "message"),
    [
        ({}, {"prompt_cut_at": 7}, "the prompt was too long: cut after character 7"),
        ({}, {"prompt_cut_at": 0}, "the prompt was too long: only the beginning of its first word was read"),
        ({}, {"negative_prompt_cut_at": 9}, "the negative prompt was too long: cut after character 9"),
        ({}, {"prompt_tokens": 8, "prompt_unknown_tokens": 2}, "2 of the 8 tokens of the prompt are unknown"),
        ({}, {"negative_prompt_tokens": 8, "negative_prompt_unknown_tokens": 1}, "1 of the 8 tokens of the negative"),
        ({"face_found_by": "aligner"}, {}, "the detector found no face"),
    ],
)
def test_what_a_user_may_not_expect_is_said(face: dict[str, Any], text: dict[str, Any], message: str) -> None:
    (warning,) = warnings(face, text)
    assert warning.startswith(message)


@pytest.mark.parametrize(
    ("face", "text"),
    [
        ({"face_found_by": "detector"}, {"prompt_tokens": 8, "prompt_unknown_tokens": 0}),
        ({"face_found_by": ["aligner"]}, {"prompt_cut_at": "7", "prompt_unknown_tokens": [1]}),
        ({"face_found_by": None}, {"prompt_cut_at": None, "prompt_unknown_tokens": -3}),
    ],
    ids=["as it should be", "of other types", "of other values"],
)
def test_nothing_else_is_said(face: dict[str, Any], text: dict[str, Any]) -> None:
    """Who calls one stage directly may send any report."""
    assert warnings(face, text) == []


def test_a_kernel_that_failed_its_trial_is_a_warning() -> None:
    def of(denoise: dict[str, Any]) -> list[str]:
        return list(describe(PLAN, "abc", {"denoise": denoise | {"seconds": 0.1}})["warnings"])

    (warning,) = of({"attention": "plain", "attention_problem": "it raised X"})
    assert warning == "attention ran in its plain form, the one for this GPU failed its trial: it raised X"
    assert of({"attention": "hopper"}) == of({"attention_problem": 3}) == []


def test_a_request_without_reports_has_no_warnings() -> None:
    assert describe(PLAN, "abc", {})["warnings"] == []


def test_tensors_are_copied_from_the_servers_memory() -> None:
    """The server uses it again, and a stage may write into its input."""
    memory = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = value_of(Port("latents", "FP32", (2, 3)), memory)
    found += 1
    assert memory[0].tolist() == [0, 1, 2] and found[0].tolist() == [1, 2, 3]


def test_bytes_arrive_as_they_were_sent() -> None:
    data = bytes(range(256))
    assert value_of(Port("image", "UINT8", (256,)), array_of(data)) == data


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Stub process 'denoise_0_0' is not healthy.", "SERVER_DIED"),
        ("Failed to process the request: Stub process is not healthy.", "SERVER_DIED"),
        ("Failed to increase the shared memory pool size for key 'a' to 9 bytes.", "SHARED_MEMORY_FULL"),
        ("Unable to initialize shared memory key 'a' to requested size (9 bytes).", "SHARED_MEMORY_FULL"),
        ("division by zero", None),
    ],
)
def test_what_the_python_backend_says_of_itself_has_a_code(text: str, code: str | None) -> None:
    found = of_backend(text)
    assert (found and found.code) == code
    assert "'a'" not in str(found), "the name of its memory stays in the log"
