"""Compiles what TensorRT gets and assembles it beside Triton's own PTX; prints what it finds as JSON.

    python assemble_ptx.py "NAME sm_NN" …

Outside the interpreter, whose switch Triton reads when it is imported. Without names: every variant that there is.
"""

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from triton.backends.nvidia.compiler import get_ptxas

from consisid_kernels.compile import tensorrt
from consisid_kernels.compile.aot import compile_for
from consisid_kernels.compile.ptx import PTX_VERSION, tensorrt_kernel
from consisid_kernels.variant import MATRIX, Variant

JOINT = [
    tensorrt.joint_attention(dtype, size, number)
    for dtype in tensorrt.DTYPES
    for size in tensorrt.HEAD_SIZES
    for number in MATRIX
]


def registers(ptx: str, architecture: int) -> int:
    target = f"sm_{architecture}{'a' if architecture >= 90 else ''}"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        tool, out = get_ptxas(architecture).path, source.with_suffix(".cubin")
        command = [tool, "-v", f"--gpu-name={target}", source, "-o", out]
        log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    found = re.search(r"Used (\d+) registers", log)
    assert found is not None
    return int(found[1])


def found(variant: Variant) -> dict[str, Any]:
    (architecture,) = variant.architectures
    kernel = tensorrt_kernel(variant, architecture)
    original = compile_for(replace(variant, options={**variant.options, "ptx_version": PTX_VERSION}), architecture)
    unaligned = tensorrt_kernel(replace(variant, aligned=()), architecture)
    return {
        "ptx": kernel.ptx,
        "threads": kernel.threads,
        "shared": kernel.shared,
        "original_threads": 32 * original.metadata.num_warps,
        "original_shared": original.metadata.shared,
        "registers": registers(kernel.ptx, architecture),
        "original_registers": registers(original.asm["ptx"], architecture),
        "unaligned": unaligned.ptx,
    }


variants = {f"{variant.name} sm_{variant.architectures[0]}": variant for variant in [*JOINT, *tensorrt.VARIANTS]}
print(json.dumps({name: found(variants[name]) for name in sys.argv[1:] or variants}))
