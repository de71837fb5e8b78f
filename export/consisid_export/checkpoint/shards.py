"""A component's weights in several safetensors files, as the index beside them lists."""

from __future__ import annotations

from pathlib import Path

from consisid_export.checkpoint.contents import read_json
from consisid_export.checkpoint.layout import SAFETENSORS
from consisid_runtime.errors import CheckpointInvalid

_ONE_FILE_FIRST = ("text_encoder",)
"""Where one file and an index are both there: transformers reads the file, diffusers what the index lists."""


def index_of(folder: Path, component: str) -> Path | None:
    """The index that a component is read by; None where it is one file."""
    stem = folder / SAFETENSORS[component]
    index = stem.with_name(f"{stem.name}.safetensors.index.json")
    if component in _ONE_FILE_FIRST and stem.with_name(f"{stem.name}.safetensors").is_file():
        return None
    return index if index.exists() else None


def shard_names(index: Path) -> dict[str, str]:
    """Tensor → name of the file beside the index that holds it. Raises `CheckpointInvalid`."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointInvalid("weight_map must be an object of tensor names and file names")
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\\0"):
            shown = f"{name!r:.100}"
            raise CheckpointInvalid(f"weight_map[{tensor!r:.100}] is {shown}, wanted the name of a file in its folder")
    return weight_map


def require_listed(index: Path, held: dict[str, set[str]]) -> None:
    """Raises `CheckpointInvalid` where the index and the files do not name the same tensors.

    Args:
        held: file → the tensors in it.
    """
    listed: dict[str, set[str]] = {}
    for tensor, name in shard_names(index).items():
        listed.setdefault(name, set()).add(tensor)
    for name, tensors in held.items():
        if lacking := listed[name] - tensors:
            raise CheckpointInvalid(f"lists {min(lacking)[:100]} in {name}, which does not hold it")
        if left_over := tensors - listed[name]:
            raise CheckpointInvalid(f"does not list {min(left_over)[:100]}, which {name} holds")
