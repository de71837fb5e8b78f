"""Hopper's form of attention runs only where it passed its trial; wrong and failing ones are put in its place."""

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from consisid_kernels import ops, reference
from consisid_kernels.attention import choice, joint, joint_hopper
from consisid_kernels.attention.choice import OWN_ERROR_FACTOR, AttentionForm, joint_attention_form, trial_inputs

CPU = torch.device("cpu")
Form = Callable[[Tensor, Tensor, Tensor], Tensor]


def right(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Another order of sums than the reference's."""
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).contiguous()


def wrong_scale(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return right(q * 1.05, k, v)


def last_block_forgotten(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return right(q, k[:, :, :-45], v[:, :, :-45])


def first_buffer_twice(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The ring wraps around before its first buffer is copied again."""
    stale = v.clone()
    stale[:, :, 512:640] = v[:, :, :128]
    return right(q, k, stale)


def no_second_start(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A row whose sum overflows is not computed again."""
    scores = (q.float() @ k.float().mT) / q.shape[-1] ** 0.5
    overflows = (scores.amax(-1) - scores[..., -45:].amax(-1)) * 1.4427 > 100
    return torch.where(overflows.transpose(1, 2)[..., None], torch.nan, right(q, k, v))


def one_head_of_another_branch(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return right(q, torch.stack((k[0], torch.stack((k[1, 0], k[0, 1])))), v)


def last_rows_not_written(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out = right(q, k, v)
    out[:, -1] = torch.nan
    return out


def raising(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    raise RuntimeError("PTX JIT compilation failed\nlog")


@pytest.fixture(autouse=True)
def on_hopper(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The device is a Hopper GPU, and the plain form is as good as PyTorch's."""
    monkeypatch.setattr(choice, "architecture", lambda _: 90)
    monkeypatch.setattr(joint, "joint_attention", reference.joint_attention)
    joint_attention_form.cache_clear()
    yield
    joint_attention_form.cache_clear()


def chosen(monkeypatch: pytest.MonkeyPatch, hopper: Form, dtype: torch.dtype = torch.bfloat16) -> AttentionForm:
    monkeypatch.setattr(joint_hopper, "joint_attention", hopper)
    return joint_attention_form(CPU, dtype, 64)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_right_form_is_chosen(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    assert chosen(monkeypatch, right, dtype) == AttentionForm("hopper", right)


@pytest.mark.parametrize(
    "form",
    [
        wrong_scale,
        last_block_forgotten,
        first_buffer_twice,
        no_second_start,
        one_head_of_another_branch,
        last_rows_not_written,
    ],
)
def test_a_wrong_form_is_not(monkeypatch: pytest.MonkeyPatch, form: Form) -> None:
    found = chosen(monkeypatch, form)
    assert (found.name, found.compute) == ("plain", reference.joint_attention)
    assert found.problem.startswith("its relative L2 error is ")


def test_one_that_raises_is_not_and_says_what_it_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    found = chosen(monkeypatch, raising)
    assert (found.name, found.problem) == ("plain", "it raised RuntimeError: PTX JIT compilation failed")


def test_the_trial_is_made_once_for_a_device_and_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[torch.dtype] = []

    def counted(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        calls.append(q.dtype)
        return right(q, k, v)

    for dtype in (torch.bfloat16, torch.bfloat16, torch.float16):
        chosen(monkeypatch, counted, dtype)
    assert calls == [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("change", ["architecture", "size", "measured"])
def test_elsewhere_and_where_it_was_measured_to_be_slower_there_is_no_trial(
    monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(joint_hopper, "joint_attention", raising)
    if change == "architecture":
        monkeypatch.setattr(choice, "architecture", lambda _: 100)
    if change == "measured":
        monkeypatch.setattr(choice, "form", lambda *given: {("joint_attention", "bf16-d64", 90): "plain"}[given])
    found = ops.joint_attention_form(CPU, torch.bfloat16, 32 if change == "size" else 64)
    assert found == AttentionForm("plain", reference.joint_attention)


@pytest.mark.parametrize("size", joint_hopper.SIZES)
def test_the_trials_inputs_make_one_row_start_again_and_are_always_the_same(size: int) -> None:
    q, k, v = trial_inputs(CPU, torch.bfloat16, size)
    assert all(torch.equal(a, b) for a, b in zip((q, k, v), trial_inputs(CPU, torch.bfloat16, size), strict=True))
    scores = (q.float() @ k.float().mT) * (1.442695 / size**0.5)
    first = scores[..., -(choice.TOKENS % 128) :].amax(-1)
    grown = torch.logsumexp((scores - first[..., None]) * 0.693147, -1) / 0.693147
    assert (grown[:, :, 5] > 100).all()
    assert (grown < 100).sum() == 4 * (choice.TOKENS - 1)


def test_a_form_may_err_as_much_as_a_kernel_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """Just within, and just beyond the limit of twice the plain form's error."""
    tensors = trial_inputs(CPU, torch.bfloat16, 64)
    exact = reference.joint_attention(*(tensor.double() for tensor in tensors))
    own = reference.joint_attention(*tensors) - exact
    for factor, name in ((0.95, "hopper"), (1.05, "plain")):
        joint_attention_form.cache_clear()
        off = exact + factor * OWN_ERROR_FACTOR * own
        assert chosen(monkeypatch, lambda q, k, v, off=off: off).name == name
