"""The PyTorch engine in bf16 against float32 on a CPU, module by module: the gate of what is measured on a GPU."""

from functools import cache
from pathlib import Path

import pytest
import torch

from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.verify.module import check
from consisid_runtime.engines.torch import TorchEngine
from consisid_runtime.models import networks

FLOAT32 = ("aligner", "parser")


@pytest.mark.parametrize("module", networks.NETWORKS)
def test_a_module_errs_at_most_twice_as_much_as_pytorch(untrained: Path, device: str, module: str) -> None:
    checkpoint = Checkpoint.open(untrained)
    load = cache(lambda dtype: networks.load(module, checkpoint, dtype))
    dtype = torch.float32 if module in FLOAT32 else torch.bfloat16
    signature = networks.signatures(checkpoint)[module]
    engine = TorchEngine(networks.load(module, checkpoint, dtype), signature, device=device)
    on_the_cpu = lambda inputs: {name: found.cpu() for name, found in engine(inputs).items()}  # noqa: E731
    rounded = load(dtype) if dtype == torch.bfloat16 else None
    found = check(load(torch.float32), on_the_cpu, signature, rounded, exact=lambda: load(torch.float64))
    assert found.error <= found.limit
