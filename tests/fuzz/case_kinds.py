"""Kinds of input that strangers send, and one case of one: its number gives its bytes."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from random import Random
from typing import Any

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Kind:
    """Cases of one kind; `module` has `make`, from a generator to a case, and `run`, which raises for a refused one.

    Attributes:
        cases: in the proof.
        sample: in the ordinary tests.
        memory: bytes that one case may take beside what the process has.
    """

    module: str
    cases: int
    sample: int
    memory: int

    def make(self, number: int) -> Any:
        return importlib.import_module(self.module).make(Random(f"{self.module} {number}"))

    def run(self, case: Any) -> None:
        importlib.import_module(self.module).run(case)


KINDS = {
    "image": Kind("image_cases", 20_000, 60, 640 * MIB),
    "parameters": Kind("parameter_cases", 6000, 40, 64 * MIB),
    "http": Kind("http_cases", 8000, 30, 64 * MIB),
    "grpc": Kind("grpc_cases", 8000, 30, 64 * MIB),
    "checkpoint": Kind("checkpoint_cases", 6000, 30, 64 * MIB),
    "door": Kind("door_cases", 3000, 0, 64 * MIB),
    "tensors": Kind("tensor_cases", 3000, 0, 512 * MIB),
}
"""A bomb of 64 megapixels may take what `read_photo` says; the others are small, and so is what they may take."""
