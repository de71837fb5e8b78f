"""The denoiser in ConsisID-preview's width, six blocks of it, four of them streamed, and with all weights on the GPU.

`python moved.py`: JSON, "plan" and "none" → counts as `planned.run` gives them; "left_by_decoders" → bytes on the
device when both decoders are loaded, whose weights wait on the host.
"""

import json

from consisid_benchmarks.fake_gpu.full_size import CONFIGS
from consisid_benchmarks.fake_gpu.machine import machine
from consisid_benchmarks.fake_gpu.planned import Planned, run
from consisid_runtime.memory.plan import MemoryPlan, needed

CONFIG = {**CONFIGS, "transformer": {**CONFIGS["transformer"], "num_layers": 6, "sample_frames": 9}}
DENOISER = ("dit_prepare", "dit_modulate", "dit_step")
ALONE = MemoryPlan(0, (), {name: needed(name) for name in DENOISER}, streamed=4, peaks={})


def left_by_decoders() -> int:
    with machine() as (meter, _):
        bundle = Planned(ALONE, CONFIG)
        for name in ("vae_decoder_first", "vae_decoder_next"):
            bundle.module(name)
        return meter.live


if __name__ == "__main__":
    counts = {name: run(plan, CONFIG, DENOISER, "denoise") for name, plan in (("plan", ALONE), ("none", None))}
    print(json.dumps({**counts, "left_by_decoders": left_by_decoders()}))
