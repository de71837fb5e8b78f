"""Counts what the modules need of memory for a longer and higher video than ConsisID-preview's.

`python larger.py`: JSON, as `CountedNeeds.to_json` gives it.
"""

import json

import torch

from consisid_benchmarks.fake_gpu.cases import begin_stage
from consisid_benchmarks.fake_gpu.full_size import CONFIGS
from consisid_benchmarks.fake_gpu.machine import device_tensor, machine
from consisid_benchmarks.fake_gpu.needs import CountedNeeds
from consisid_benchmarks.fake_gpu.stages import run_stages

LARGER = {**CONFIGS, "transformer": {**CONFIGS["transformer"], "sample_frames": 65, "sample_height": 72}}

if __name__ == "__main__":
    with machine() as (meter, _), torch.no_grad():
        needs = CountedNeeds(meter, LARGER)
        for stage in ("encode", "denoise", "decode"):
            bundle = needs.bundle()
            run_stages(bundle, lambda *shape: device_tensor(meter, *shape), begin_stage(meter), stage)
            needs.end(bundle)
            del bundle
    print(json.dumps(needs.to_json()))
