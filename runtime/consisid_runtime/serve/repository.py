"""Writes Triton server's model repository from the signatures; `python -m consisid_runtime.serve.repository FOLDER`.

The committed `model_repository/` is exactly this: it holds no path and no checkpoint's sizes (−1 instead).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from consisid_runtime.signatures import ENSEMBLE, Port, Signature
from consisid_runtime.stages.table import STAGES

_NOTE = "# Written by `python -m consisid_runtime.serve.repository` from signatures.py; change it there.\n"
# Requests that may wait for a stage; more are refused at once. max_batch_size is 0: requests are never batched.
_QUEUE = 16
_MODEL = 'from consisid_runtime.serve.models import served\n\nTritonPythonModel = served("{name}")\n'
_TYPES = {"BYTES": "TYPE_STRING"}


def stage_config(signature: Signature) -> str:
    """`config.pbtxt` of a Python model; the launcher says where it runs, hence no GPU instance of Triton server's."""
    return (
        f'{_NOTE}name: "{signature.name}"\nbackend: "python"\nmax_batch_size: 0\n'
        f"{_ports(signature)}instance_group [ {{ kind: KIND_CPU count: 1 }} ]\n"
        f"dynamic_batching {{ default_queue_policy {{ max_queue_size: {_QUEUE} }} }}\n"
    )


def ensemble_config(ensemble: Signature, stages: Iterable[Signature]) -> str:
    """`config.pbtxt` of the ensemble: ports of the same name are the same tensor, so each map is the identity.

    Optional inputs are not given, and outputs that nobody takes are not mapped.
    """
    stages = tuple(stages)
    taken = {port.name for part in stages for port in part.inputs if not port.optional}
    taken |= {port.name for port in ensemble.outputs}
    steps = "".join(
        f'  step {{\n    model_name: "{stage.name}"\n    model_version: -1\n'
        + _maps("input", [port for port in stage.inputs if not port.optional])
        + _maps("output", [port for port in stage.outputs if port.name in taken])
        + "  }\n"
        for stage in stages
    )
    return (
        f'{_NOTE}name: "{ensemble.name}"\nplatform: "ensemble"\nmax_batch_size: 0\n'
        f"{_ports(ensemble)}ensemble_scheduling {{\n{steps}}}\n"
    )


def repository() -> dict[str, str]:
    """Every file of the repository: path inside it → content. The ensemble's version folder is empty but must exist."""
    files = {}
    for stage in STAGES:
        files[f"{stage.name}/config.pbtxt"] = stage_config(stage.signature)
        files[f"{stage.name}/1/model.py"] = _MODEL.format(name=stage.name)
    files[f"{ENSEMBLE.name}/config.pbtxt"] = ensemble_config(ENSEMBLE, [stage.signature for stage in STAGES])
    files[f"{ENSEMBLE.name}/1/.gitkeep"] = ""
    return files


def write_repository(folder: Path) -> None:
    """Write the model repository into `folder`, over what is there."""
    for name, content in repository().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


def _maps(side: str, ports: Iterable[Port]) -> str:
    return "".join(f'    {side}_map {{ key: "{port.name}" value: "{port.name}" }}\n' for port in ports)


def _ports(signature: Signature) -> str:
    return "".join(
        f"{side} {{ {port_text(port)} }}\n"
        for side, ports in (("input", signature.inputs), ("output", signature.outputs))
        for port in ports
    )


def port_text(port: Port) -> str:
    """A tensor in the notation of `config.pbtxt`; -1 for what varies."""
    dims = ", ".join(str(size) if isinstance(size, int) else "-1" for size in port.shape)
    optional = " optional: true" if port.optional else ""
    return f'name: "{port.name}" data_type: {_TYPES.get(port.dtype, f"TYPE_{port.dtype}")} dims: [ {dims} ]{optional}'


if __name__ == "__main__":
    write_repository(Path(sys.argv[1]))
