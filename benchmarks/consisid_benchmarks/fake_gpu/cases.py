"""The two things that are counted: a whole request of nano's, and every stage at ConsisID-preview's size.

`python -m consisid_benchmarks.fake_gpu.cases nano BUNDLE` or `full [STAGE]` prints the counts as JSON. It needs a
process of its own, without a GPU and without `TRITON_INTERPRET`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from consisid_benchmarks.fake_gpu.budgets import NANO_STEPS
from consisid_benchmarks.fake_gpu.driver import Launches
from consisid_benchmarks.fake_gpu.full_size import FullSize
from consisid_benchmarks.fake_gpu.machine import device_tensor, host_tensor, machine
from consisid_benchmarks.fake_gpu.meter import Meter
from consisid_benchmarks.fake_gpu.needs import CountedNeeds
from consisid_benchmarks.fake_gpu.stages import FP8, run_stages
from consisid_nano.demo.demo import OPTIONS
from consisid_runtime.bundle import Bundle
from consisid_runtime.engines import Engine
from consisid_runtime.engines.torch import BundleWeights, TorchEngine
from consisid_runtime.models import networks
from consisid_runtime.pipeline import Pipeline


def full(only: str = "") -> dict[str, Any]:
    """Every stage whose name begins with `only`, at ConsisID-preview's size. No image is read, no MP4 written.

    The last one, "fp8/denoise", is denoising with a step in fp8.
    """
    with machine() as (meter, launches), torch.no_grad():
        # Made anew for each stage, so that a stage's memory is its own.
        needs = CountedNeeds(meter)
        for name in ("face", "text", "encode", "denoise", "decode", f"{FP8}denoise"):
            if name.startswith(only):
                float8, stage = name.startswith(FP8), name.removeprefix(FP8)
                bundle = FullSize(lambda _, *made: host_tensor(*made), float8=True) if float8 else needs.bundle()
                begin = begin_stage(meter, FP8 if float8 else "")
                run_stages(bundle, lambda *shape: device_tensor(meter, *shape), begin, stage)
                if not float8:
                    needs.end(bundle)
                del bundle
        return counted(meter, launches) | ({} if only else {"memory": needs.to_json()})


def nano(folder: Path) -> dict[str, Any]:
    """A bundle of nano's for the torch engine, in bf16, through `Pipeline.generate`, from a picture to an MP4."""
    from consisid_nano.demo.demo import portrait, prompt

    with machine() as (meter, launches):
        pipeline = Pipeline(Seeing.open(folder, device="auto"), faces_kept=0)
        begin = begin_stage(meter)

        def progress(stage: str, done: int, total: int) -> None:
            begin(stage if stage != "denoise" or not done else "denoise/steps" if done < total else "")

        pipeline.generate(portrait(0), prompt(0), replace(OPTIONS, steps=NANO_STEPS), progress=progress)
        return counted(meter, launches)


class Seeing(Bundle):
    """Its aligner answers with real numbers, computed on the CPU beside the counted run: zeros would be no face."""

    def module(self, name: str) -> Engine:
        engine = super().module(name)
        if name != "aligner":
            return engine
        real = TorchEngine(networks.load(name, BundleWeights(self)), self.signature(name), device="cpu")

        def answer(inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            engine(inputs)
            return real(inputs)

        return answer


def begin_stage(meter: Meter, prefix: str = "") -> Any:
    return lambda stage: meter.begin(prefix + stage if stage else "between")


def counted(meter: Meter, launches: Launches) -> dict[str, Any]:
    counts = {name: count.to_json() for name, count in meter.stages.items() if count.kernels}
    counts.pop("between", None)
    return {
        "versions": {name: version(name) for name in ("torch", "triton")},
        "stages": counts,
        "compiled": launches.to_json(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=("nano", "full"))
    parser.add_argument("what", nargs="?", default="", help="nano: folder of the bundle; full: one stage")
    arguments = parser.parse_args()
    found = nano(Path(arguments.what)) if arguments.case == "nano" else full(arguments.what)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
