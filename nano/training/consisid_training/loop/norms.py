"""Running statistics of batch normalisation, as the averaged weights have them."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from consisid_training.loop.resumable import Stage


def settle(stage: Stage, batches: Iterable[Tensor]) -> None:
    """Measure them anew on `batches` of inputs and save them with the averaged weights, once a stage has ended.

    While the weights were moving, so were their statistics. Of a stage that was stopped early nothing is touched.
    """
    if stage.step < stage.steps or stage.settled:
        return
    network = copy.deepcopy(stage.network)
    network.load_state_dict(stage.averaged)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # every batch counts the same
    network.train()
    with torch.no_grad():
        for batch in batches:
            network(batch)
    stage.averaged = {name: value.clone() for name, value in network.state_dict().items()}
    stage.settled = True
    stage.save()
