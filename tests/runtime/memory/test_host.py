"""Weights on the host take about their own size, and are what they were."""

from itertools import pairwise

import torch

from consisid_runtime.memory.host import HostMemory

SIZES = [(300, 7), (64, 64, 3, 3), (1,), (), (1000,), (40, 40)]


def test_copies_are_equal_aligned_and_apart() -> None:
    memory = HostMemory(pinned=False, piece=4096)
    originals = [torch.randn(size).to(dtype) for size in SIZES for dtype in (torch.float32, torch.bfloat16)]
    originals += [torch.randn(2, 8, 6, 6).to(memory_format=torch.channels_last), torch.arange(5)]
    kept = [memory.kept(tensor) for tensor in originals]
    for found, wanted in zip(kept, originals, strict=True):
        assert torch.equal(found, wanted) and found.stride() == wanted.stride() and found.dtype == wanted.dtype
    spans = sorted((tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes) for tensor in kept)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))


def test_pieces_are_filled() -> None:
    memory = HostMemory(pinned=False, piece=2**20)
    bytes_of = [300_000, 400_000, 200_000, 700_000, 300_000, 100_000]
    for count in bytes_of:
        memory.kept(torch.zeros(count, dtype=torch.uint8))
    assert [len(piece) for piece, _ in memory._pieces] == [2**20] * 2
    memory.kept(torch.zeros(2**21, dtype=torch.uint8))
    assert len(memory._pieces[-1][0]) == 2**21, "what is larger has a piece of its own"
