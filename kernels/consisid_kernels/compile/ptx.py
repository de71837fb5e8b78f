"""A kernel as TensorRT takes it: PTX whose parameters are pointers of inputs, int32 numbers, pointers of outputs.

TensorRT hands an AOT plugin's PTX to the driver and passes those parameters, no others. Triton appends two of its own,
for scratch memory, writes the newest PTX its assembler knows, and adds the paths of source files for debuggers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from consisid_kernels.compile.aot import compile_for
from consisid_kernels.variant import Variant

PTX_VERSION = 87
"""PTX 8.7: Triton 3.6's own, and what drivers read since CUDA 12.8. Newer Tritons write more than CUDA 13.0's reads."""

_HEAD = re.compile(r"\.visible \.entry (?P<name>\w+)\(\n(?P<parameters>.*?)\n\)\n(?P<directives>.*?)\{\n", re.DOTALL)
_DEBUG = re.compile(r"^\s*\.(?:loc|file)\s.*\n|^\s*\.section\s+\.debug_\w+\s*\{[^}]*\}\n?", re.MULTILINE)
_ORDER = re.compile(r"(\*\w+ )+(i32 )*(\*\w+ )+")


@dataclass(frozen=True)
class Kernel:
    """What TensorRT needs to launch a kernel.

    Attributes:
        name: the entry point in `ptx`.
        ptx: without hidden parameters and debugging sections.
        threads: of a block, all along x.
        shared: bytes of a block's dynamic shared memory.
    """

    name: str
    ptx: str
    threads: int
    shared: int


def tensorrt_kernel(variant: Variant, architecture: int) -> Kernel:
    """Compile a variant whose signature is inputs, int32 numbers, outputs; every float is a constant. Needs no GPU.

    Raises:
        ValueError: the signature has another order or other types, or the compiled kernel needs what TensorRT does not
            give it: scratch memory, clusters, a cooperative launch.
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
    """Cut what Triton appended to the entry's first `parameters`. Raises ValueError where the kernel reads it."""
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
    """Without line numbers and the names of source files, which are paths of the machine that compiled."""
    return _DEBUG.sub("", ptx)


def _check(variant: Variant, metadata: Any) -> None:
    """Triton versions differ in which of these they know."""
    needs = ("global_scratch_size", "profile_scratch_size", "launch_cooperative_grid", "launch_pdl")
    values = {name: getattr(metadata, name, 0) for name in needs} | {"num_ctas": metadata.num_ctas - 1}
    if needed := [name for name, value in values.items() if value]:
        raise ValueError(f"{variant.name} needs {', '.join(needed)}, which TensorRT does not give a plugin's kernel")
