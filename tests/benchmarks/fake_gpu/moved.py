"""The denoiser in ConsisID-preview's width, six blocks of it, four of them streamed, and with all weights on the GPU.

`python moved.py`: JSON, "plan" and "none" → counts as `planned.run` gives them.
"""

import json

from consisid_benchmarks.fake_gpu.full_size import CONFIGS
from consisid_benchmarks.fake_gpu.planned import run
from consisid_runtime.memory.plan import MemoryPlan, needed

CONFIG = {**CONFIGS, "transformer": {**CONFIGS["transformer"], "num_layers": 6, "sample_frames": 9}}
DENOISER = ("dit_prepare", "dit_modulate", "dit_step")
ALONE = MemoryPlan(0, (), {name: needed(name) for name in DENOISER}, streamed=4, peaks={})

if __name__ == "__main__":
    counts = {name: run(plan, CONFIG, DENOISER, "denoise") for name, plan in (("plan", ALONE), ("none", None))}
    print(json.dumps(counts))
