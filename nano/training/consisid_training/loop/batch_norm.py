"""Measures running statistics of batch normalisation for the averaged weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from consisid_training.loop.resumable import TrainingRun


def remeasure_statistics(run: TrainingRun, batches: Iterable[Tensor]) -> None:
    """Replace the statistics in the averaged weights by those of `batches` of inputs, once a run has finished.

    During training they lag behind the changing weights. Does nothing for an unfinished run, or a second time.
    """
    if run.step < run.steps or run.remeasured:
        return
    network = copy.deepcopy(run.network)
    network.load_state_dict(run.averaged)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # every batch counts the same
    network.train()
    with torch.no_grad():
        for batch in batches:
            network(batch)
    run.averaged = {name: value.clone() for name, value in network.state_dict().items()}
    run.remeasured = True
    run.save()
