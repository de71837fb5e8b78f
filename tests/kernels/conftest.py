"""The device and the interpreter of the kernels' tests: a GPU if there is one, else Triton's interpreter."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def exact_bfloat16() -> None:
    """Corrects Triton's interpreter, which stores bfloat16 as integers and multiplies these in matrix products.

    Operands of products are converted to float32. Casts to bfloat16, which it truncates, and to E4M3, which it rounds
    without a carry into the exponent, are rounded to nearest even.
    """
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

    def rounding(cast):  # type: ignore[no-untyped-def]
        def rounded(self, x, target, *mode):  # type: ignore[no-untyped-def]
            dtype = {tl.bfloat16: torch.bfloat16, tl.float8e4nv: torch.float8_e4m3fn}.get(target.scalar)
            if dtype is None or x.dtype.scalar != tl.float32:
                return cast(self, x, target, *mode)
            bits = torch.from_numpy(np.ascontiguousarray(x.data)).to(dtype)
            return TensorHandle(bits.view(getattr(torch, f"uint{8 * dtype.itemsize}")).numpy(), target.scalar)

        return rounded

    InterpreterBuilder.create_dot = dot
    InterpreterBuilder.cast_impl = rounding(InterpreterBuilder.cast_impl)
    InterpreterBuilder.create_fp_to_fp = rounding(InterpreterBuilder.create_fp_to_fp)


@pytest.fixture
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
