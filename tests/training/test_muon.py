"""Muon takes the same steps as PyTorch's, apart from rounding to bfloat16."""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from consisid_training.loop import muon
from consisid_training.loop.muon import Muon, orthogonal


def test_updates_are_nearly_orthogonal_and_keep_directions() -> None:
    matrices = torch.randn(3, 24, 60, generator=torch.Generator().manual_seed(0))
    for found, given in ((orthogonal(matrices), matrices), (orthogonal(matrices.mT).mT, matrices)):
        sizes = torch.linalg.svdvals(found)
        assert sizes.min() > 0.6 and sizes.max() < 1.3
        assert (found * given).sum((1, 2)).min() > 0


def test_steps_equal_pytorchs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PyTorch's rounding to bfloat16 the results are equal."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    monkeypatch.setattr(muon, "autocast", lambda device: nullcontext())
    torch.manual_seed(1)
    own = nn.Sequential(nn.Linear(24, 60, bias=False), nn.Linear(60, 24, bias=False), nn.Linear(24, 60, bias=False))
    theirs = copy.deepcopy(own)
    before = copy.deepcopy(own)
    ours = Muon(own.parameters(), lr=1e-2)
    reference = torch.optim.Muon(theirs.parameters(), lr=1e-2, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        inputs, wanted = torch.randn(32, 24), torch.randn(32, 60)
        for network, optimizer in ((own, ours), (theirs, reference)):
            optimizer.zero_grad()
            (network(inputs) - wanted).square().mean().backward()
            optimizer.step()
    for one, other, start in zip(own.parameters(), theirs.parameters(), before.parameters(), strict=True):
        moved = torch.linalg.norm(other - start)
        assert torch.linalg.norm(one - other) <= 1e-5 * moved
