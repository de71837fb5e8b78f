"""Runs on the fake GPU, at ConsisID-preview's size, what `make gpu` runs on a real one; prints the rows as JSON.

Weights are on the device while networks load, as there: what mixes devices is refused.
"""

import json
import sys
from dataclasses import asdict
from typing import Any
from unittest import mock

import torch

from consisid_benchmarks.fake_gpu.full_size import CONFIGS, FullSize
from consisid_benchmarks.fake_gpu.machine import device_tensor, machine
from consisid_benchmarks.gpu_run import stages, whole, width_check
from consisid_benchmarks.gpu_run.stopwatch import Gauge
from consisid_measurement.record import Row


def run(what: str) -> list[Row]:
    with machine() as (meter, _), torch.no_grad():

        def bundle(device: str = "cuda", configs: Any = CONFIGS) -> FullSize:
            return FullSize(lambda _, shape, dtype: device_tensor(meter, *shape, dtype=dtype), configs=configs)

        def given(*shape: int) -> torch.Tensor:
            return device_tensor(meter, *shape)

        gauge = Gauge(lambda: None, lambda: None, lambda: meter.live)
        if what == "width":
            # `torch.tensor` with a device, in PyTorch's own form of the step, needs a real one.
            with (
                mock.patch.object(torch, "tensor", lambda values, device: given(len(values))),
                mock.patch.object(width_check, "bundle", bundle),
                mock.patch.object(
                    width_check, "relative_error", lambda found, wanted: float(found.shape != wanted.shape)
                ),
            ):
                width_check.require_same_step("cuda")
            rows = []
        elif what == "whole":
            rows = whole.measure(bundle(), given, gauge, 1000)
        else:
            rows = stages.measure(bundle, given, gauge, {}, {}, 1, lambda *_: None)
        assert meter.live == 0, f"{meter.live} bytes are still held"
        return rows


if __name__ == "__main__":
    print(json.dumps([asdict(row) for row in run(sys.argv[1])]))
