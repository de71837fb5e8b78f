"""Kinds of input that strangers send. The cases of KIND are made and run by the module KIND_cases.

A case's number gives its bytes: `make` gets `Random("KIND NUMBER")`. `run` raises for a case that is refused.
"""

from __future__ import annotations

from typing import NamedTuple

MIB = 2**20


class Kind(NamedTuple):
    """How many cases there are in the proof, and of these in the ordinary tests.

    Attributes:
        memory: bytes that one case may take beside what the process has.
    """

    cases: int
    sample: int
    memory: int


KINDS = {
    "image": Kind(20_000, 60, 640 * MIB),  # what `read_photo` promises for any file
    "parameter": Kind(6000, 40, 64 * MIB),
    "http": Kind(8000, 30, 64 * MIB),
    "grpc": Kind(8000, 30, 64 * MIB),
    "checkpoint": Kind(6000, 30, 64 * MIB),
    "door": Kind(3000, 0, 512 * MIB),  # of the client, who gets frames of 51 MB
    "stream": Kind(1000, 10, 512 * MIB),
    "tensor": Kind(3000, 20, 512 * MIB),
}
