"""Compiles a kernel to PTX for TensorRT, with the parameters that it passes: input pointers, int32 numbers, outputs.

TensorRT loads the PTX of an AOT plugin with the driver and passes no other parameters. Triton appends two hidden ones,
for scratch memory, writes the newest PTX version that its assembler supports, and adds paths of source files for
debuggers. The hidden parameters and debugging sections are removed, and the version is fixed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from consisid_kernels.compile.aot import compile_for
from consisid_kernels.variant import Variant

PTX_VERSION = 87
"""PTX 8.7, the version of Triton 3.6, supported by drivers since CUDA 12.8. Newer Tritons write versions that CUDA
13.0 does not support."""

_HEAD = re.compile(r"\.visible \.entry (?P<name>\w+)\(\n(?P<parameters>.*?)\n\)\n(?P<directives>.*?)\{\n", re.DOTALL)
_DEBUG = re.compile(r"^\s*\.(?:loc|file)\s.*\n|^\s*\.section\s+\.debug_\w+\s*\{[^}]*\}\n?", re.MULTILINE)
_ORDER = re.compile(r"(\*\w+ )+(i32 )*(\*\w+ )+")


@dataclass(frozen=True)
class Kernel:
    """What TensorRT needs to launch a kernel.

    Attributes:
        name: the entry point in `ptx`.
        ptx: PTX without hidden parameters and debugging sections.
        threads: threads of a block, all along x.
        shared: bytes of a block's dynamic shared memory.
    """

    name: str
    ptx: str
    threads: int
    shared: int


def tensorrt_kernel(variant: Variant, architecture: int) -> Kernel:
    """Compiles a variant whose signature is inputs, int32 numbers, outputs, without a GPU; floats must be constants.

    Raises:
        ValueError: the signature has another order or other types, or the compiled kernel needs scratch memory,
            clusters or a cooperative launch, which TensorRT does not provide.
    """
    types = [type_ for type_ in variant.signature.values() if type_ != "constexpr"]
    if not _ORDER.fullmatch("".join(f"{type_} " for type_ in types)):
        raise ValueError(f"{variant.name} takes {', '.join(types)}; TensorRT passes pointers, then i32, then pointers")
    compiled = compile_for(replace(variant, options={**variant.options, "ptx_version": PTX_VERSION}), architecture)
    _check(variant, compiled.metadata)
    ptx = without_debugging(without_hidden(compiled.asm["ptx"], len(types)))
    head = _HEAD.search(ptx)
    assert head is not None
    threads = re.search(r"\.reqntid (\d+)", head["directives"])
    assert threads is not None
    return Kernel(head["name"], ptx, int(threads[1]), int(compiled.metadata.shared))


def without_hidden(ptx: str, parameters: int) -> str:
    """Removes all but the entry's first `parameters`. Raises ValueError if the kernel reads one of the others."""
    head = _HEAD.search(ptx)
    if head is None or len(_HEAD.findall(ptx)) != 1:
        raise ValueError("the PTX has no single entry point; wanted one kernel")
    lines = head["parameters"].split(",\n")
    if len(lines) < parameters:
        raise ValueError(f"{head['name']} has {len(lines)} parameters; wanted at least {parameters}")
    for line in lines[parameters:]:
        name = line.split()[-1]
        if len(re.findall(rf"\b{re.escape(name)}\b", ptx)) != 1:
            raise ValueError(f"{head['name']} reads its hidden parameter {name}, which TensorRT does not pass")
    start, end = head.span("parameters")
    return ptx[:start] + ",\n".join(lines[:parameters]) + ptx[end:]


def without_debugging(ptx: str) -> str:
    """Removes line numbers and the paths of source files."""
    return _DEBUG.sub("", ptx)


def _check(variant: Variant, metadata: Any) -> None:
    """Raises ValueError if the kernel needs more than TensorRT provides. Some Triton versions lack some fields."""
    needs = ("global_scratch_size", "profile_scratch_size", "launch_cooperative_grid", "launch_pdl")
    values = {name: getattr(metadata, name, 0) for name in needs} | {"num_ctas": metadata.num_ctas - 1}
    if needed := [name for name, value in values.items() if value]:
        raise ValueError(
            f"{variant.name} needs {', '.join(needed)}, which TensorRT does not provide to a plugin's kernel"
        )
