"""What cases found, one test each."""

from __future__ import annotations

import json
import time

import checkpoint_cases
import numpy as np
import pytest
import torch

from consisid_runtime.door.http.body import parse, parse_generate
from consisid_runtime.door.limits import Limits
from consisid_runtime.door.server.upstream import _typed
from consisid_runtime.errors import CheckpointRefused, ConsisIDError, InvalidOption, MalformedRequest, NotFinite
from consisid_runtime.serve.tensor_checks import check_finite
from consisid_runtime.signatures import DENOISE_MODEL
from consisid_runtime.stages.denoise import Range, SolverState, _resumed

HALF = b'"\\ud800"'


@pytest.mark.parametrize("read", [parse, parse_generate])
def test_an_id_of_half_a_character(read: object) -> None:
    """It was read, worked on, and ended the answer with INTERNAL."""
    body = b'{"id":' + HALF + b',"image":"YWJj","prompt":"a man"}'
    if read is parse:
        body = b'{"id":' + HALF + b',"inputs":[]}'
    with pytest.raises(MalformedRequest, match="surrogates not allowed"):
        read("consisid", bytearray(body), len(body), Limits())  # type: ignore[operator]


def generator(left: int, place: int) -> torch.Tensor:
    """A state that says how many numbers are left, and where the next one is."""
    drawn = torch.Generator().manual_seed(3)
    torch.randn(10, generator=drawn)
    state = drawn.get_state()
    fields = np.array([left], "<i4").tobytes(), np.array([place], "<u8").tobytes()
    for start, field in zip((8, 16), fields, strict=True):
        state[start : start + len(field)] = torch.frombuffer(bytearray(field), dtype=torch.uint8)
    return state


def resume(state: torch.Tensor) -> SolverState:
    latents = torch.zeros(1, 3, 2, 4, 4)
    return _resumed(Range(range(1, 2), latents, SolverState(latents, state)), latents)[1]


@pytest.mark.parametrize(("left", "place"), [(624, 624), (600, 600), (3, 623), (2, 624)])
def test_a_generator_that_would_read_beyond_its_numbers(left: int, place: int) -> None:
    """PyTorch took it, and drew noise from whatever memory came next."""
    with pytest.raises(InvalidOption, match="it would read beyond its numbers"):
        resume(generator(left, place))


@pytest.mark.parametrize("draws", [0, 10, 311, 312, 623, 624, 625, 5000])
def test_every_true_state_of_a_generator_goes_on(draws: int) -> None:
    true = torch.Generator().manual_seed(7)
    torch.rand(draws, generator=true, dtype=torch.float32)
    assert torch.equal(resume(true.get_state()).generator, true.get_state())


def test_a_checkpoint_with_the_words_of_triton_server() -> None:
    """A tensor of this name whose offsets are wrong: what safetensors said of it ended the server, for everybody."""
    words, true = "Stub process is not healthy", checkpoint_cases.true()
    size = int.from_bytes(true[:8], "little")
    header = json.loads(true[8 : 8 + size])
    header[words] = {"dtype": "F32", "shape": [1], "data_offsets": [9, 4]}
    text = json.dumps(header).encode()
    with pytest.raises(CheckpointRefused, match="cannot be read") as caught:
        checkpoint_cases.run(len(text).to_bytes(8, "little") + text + true[8 + size :])
    assert words not in str(caught.value)


@pytest.mark.parametrize("kind", [CheckpointRefused, InvalidOption])
def test_an_error_that_quotes_the_words_of_triton_server(kind: type[ConsisIDError]) -> None:
    """The door took it for the death of a process, and ended the server."""
    assert type(_typed(kind("Stub process is not healthy").wire(), None)) is kind


def test_a_checkpoint_with_a_long_header() -> None:
    """64 MB of `[],` took minutes and gigabytes, before anything was compared."""
    text = b"[" + b"[]," * 2**20 + b"1]"
    begin = time.process_time()
    with pytest.raises(CheckpointRefused, match="its header is too large"):
        checkpoint_cases.run(len(text).to_bytes(8, "little") + text)
    assert time.process_time() - begin < 0.1


def test_what_a_stage_returns_is_finite() -> None:
    """The next stage said INVALID_OPTION, as if its caller had made the value up."""
    good = np.zeros((1, 3, 2, 4, 4), np.float32)
    bad = good.copy()
    bad[0, 0, 0, 0, 0] = np.inf
    check_finite(DENOISE_MODEL, {"latents": good, "x0": good})
    with pytest.raises(NotFinite, match="denoise returned x0 with values that are not finite"):
        check_finite(DENOISE_MODEL, {"latents": good, "x0": bad})
