"""Prints the kernels that are compiled when a server of nano's bundle is warm, and after its first request.

`python warm.py BUNDLE`: JSON.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

from consisid_benchmarks.fake_gpu.cases import Seeing
from consisid_benchmarks.fake_gpu.machine import machine
from consisid_nano.demo.demo import OPTIONS, portrait, prompt
from consisid_runtime.pipeline import Pipeline
from consisid_runtime.serve.readiness.warm_up import warm_up

if __name__ == "__main__":
    with machine() as (_, launches):
        pipeline = Pipeline(Seeing.open(Path(sys.argv[1]), device="auto"))
        cold = sorted(launches.compiled)
        warm_up(pipeline.bundle)
        warm = sorted(launches.compiled)
        pipeline.generate(portrait(0), prompt(0), replace(OPTIONS, steps=2))
        print(json.dumps({"cold": cold, "warm": warm, "after": sorted(launches.compiled)}))
