"""The emulated sums of E4M3 products."""

import torch
from float8_sums import products


def test_bits_below_the_largest_product_are_truncated() -> None:
    x = torch.tensor([[1.0, 2**-7, 2**-7], [1.0, 2**-7, 2**-6]])
    assert products(x, torch.tensor([[1.0, 2**-7, 2**-7]]), 3).tolist() == [[1.0], [1 + 2**-13]]
    assert products(-x, torch.tensor([[1.0, 2**-7, 2**-7]]), 3).tolist() == [[-1.0], [-1 - 2**-13]]


def test_a_block_starts_from_zero() -> None:
    x = torch.zeros(1, 64)
    x[0, 0], x[0, 32] = 1.0, 2**-7
    y = torch.zeros(1, 64)
    y[0, 0], y[0, 32] = 1.0, 2**-8
    assert products(x, y, 64).item() == 1
    assert products(x, y, 32).item() == 1 + 2**-15


def test_relative_error_is_about_2_to_the_minus_13() -> None:
    torch.manual_seed(0)
    a, b = (torch.randn(2, 40, 200).to(torch.float8_e4m3fn) for _ in range(2))
    exact = a.double() @ b.double().mT
    assert 2**-16 < float((products(a, b, 128) - exact).norm() / exact.norm()) < 2**-11
