"""Trains nano and its judges, one resumable training run a module.

`run` executes all of them in order. Layers: `data` and `loop` below `faces`, then `judges` and `video`; `onnx_files` is
below `faces`, the other modules here are above all folders.
"""

import os

# oneDNN of PyTorch 2.13 writes past its memory in the gradient of a convolution's weights in bfloat16, where a CPU
# has AMX (brgconv_bwd_w:avx10_1_512_amx: "double free or corruption"). It reads this when it first computes.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_FP16")
