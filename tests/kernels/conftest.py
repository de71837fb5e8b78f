"""Kernels run on the GPU where there is one, else in Triton's interpreter, which reads its switch at decoration."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(autouse=True, scope="session")
def exact_bfloat16() -> None:
    """The interpreter holds bfloat16 as integers and multiplies those: widen what enters a matrix product."""
    if torch.cuda.is_available():
        return
    import numpy as np
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    create_dot = InterpreterBuilder.create_dot

    def widened(handle: TensorHandle) -> TensorHandle:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        bits = handle.data.astype(np.uint32) << 16
        return TensorHandle(bits.view(np.float32), tl.float32)

    def dot(self, a, b, *rest):  # type: ignore[no-untyped-def]
        return create_dot(self, widened(a), widened(b), *rest)

    InterpreterBuilder.create_dot = dot


@pytest.fixture
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
