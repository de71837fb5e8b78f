"""Finds everything that is wrong with a checkpoint: files, configurations, weights, and what does not fit together."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import onnx
import torch
from safetensors import SafetensorError
from torch import Tensor

from consisid_export.checkpoint import change_curve, example
from consisid_export.checkpoint.contents import one_line, readable, require_content
from consisid_export.checkpoint.layout import (
    CONFIGS,
    DETECTOR,
    MODEL_INDEX,
    PICKLES,
    RECOGNISER,
    SAFETENSORS,
    TOKENIZER,
)
from consisid_export.checkpoint.model_index import require_consisid
from consisid_export.checkpoint.shards import index_of, require_listed
from consisid_export.checkpoint.tensor_files import stored_tensors
from consisid_export.checkpoint.tokenizer import settings_problems, vocabulary
from consisid_runtime.errors import CheckpointInvalid
from consisid_runtime.models import networks
from consisid_runtime.models.configs.checkpoint import CheckpointConfig
from consisid_runtime.models.eva_clip import EvaVision

_ONNX_OUTPUTS = {DETECTOR: 9, RECOGNISER: 1}
_WHOLE = ("aligner", "parser", "clip", "local_extractor", "text_encoder", "vae_encoder", "vae_decoder_next", "dit_step")
"""Modules whose weights together are all of a checkpoint's; the others share theirs with these."""
_SHARED, _EMBEDDING = "shared.weight", "encoder.embed_tokens.weight"


class Opened(Protocol):
    """A checkpoint that is being opened."""

    path: Path
    config: CheckpointConfig

    def tensors(self, component: str) -> dict[str, Tensor]: ...

    def shards(self, component: str) -> list[Path]: ...


def find_problems(checkpoint: Opened) -> dict[str, list[str]]:
    """File → everything that is wrong with it."""
    search = _Search(checkpoint)
    search.configurations()
    search.tokenizer()
    for component in SAFETENSORS:
        search.safetensors(component)
    for component, file in PICKLES.items():
        search.attempt(file, lambda component=component: search.weights(component))  # type: ignore[misc]
    search.faces()
    search.attempt(example.FILE, lambda: example.read(checkpoint.path))
    search.attempt(change_curve.FILE, lambda: change_curve.read(checkpoint.path))
    return search.found


class _Search:
    """Attributes: found, file → problems."""

    def __init__(self, checkpoint: Opened) -> None:
        self.found: dict[str, list[str]] = {}
        self._checkpoint, self._folder = checkpoint, checkpoint.path
        self._clip: dict[str, int] = {}

    def attempt(self, file: str, work: Callable[[], object]) -> bool:
        """Note what `work` raises as a problem of `file`. Returns whether it raised nothing."""
        try:
            with readable():
                work()
        except (CheckpointInvalid, SafetensorError, pickle.UnpicklingError, ValueError) as error:
            self._note(file, one_line(error))
        except (RuntimeError, EOFError) as error:
            self._note(file, f"cannot be read ({one_line(error)})")
        else:
            return True
        return False

    def configurations(self) -> None:
        for file, problems in self._checkpoint.config.problems().items():
            self.found[file] = problems
        if (self._folder / MODEL_INDEX).exists():
            self.attempt(MODEL_INDEX, lambda: require_consisid(self._folder / MODEL_INDEX))

    def tokenizer(self) -> None:
        sizes: list[int] = []
        self.attempt(TOKENIZER, lambda: sizes.append(vocabulary(self._folder)))
        for file, problem in settings_problems(self._folder, sizes[0] if sizes else None):
            self._note(file, problem)
        if sizes and self._parses("text_encoder"):
            rows = self._checkpoint.config.text_encoder.vocabulary
            if rows < sizes[0]:
                self._note(CONFIGS["text_encoder"], f"vocab_size is {rows}, wanted {sizes[0]} or more, as {TOKENIZER}")

    def safetensors(self, component: str) -> None:
        index = index_of(self._folder, component)
        label = str(index.relative_to(self._folder)) if index else f"{SAFETENSORS[component]}.safetensors"
        shards: list[Path] = []
        if not self.attempt(label, lambda: shards.extend(self._checkpoint.shards(component))):
            return
        names = {shard: str(shard.relative_to(self._folder)) for shard in shards}
        # A list, so that every shard is looked at.
        if not all([self.attempt(name, lambda shard=shard: require_content(shard)) for shard, name in names.items()]):  # type: ignore[misc]
            return
        if self.attempt(label, lambda: self.weights(component)):
            held: dict[str, set[str]] = {}
            for shard, name in names.items():
                self.attempt(name, lambda shard=shard: held.update({shard.name: {*stored_tensors(shard)}}))  # type: ignore[misc]
            if index and len(held) == len(shards):
                self.attempt(label, lambda: require_listed(index, held))

    def weights(self, component: str) -> None:
        """Raises `CheckpointInvalid` where a component's tensors are not those that its configuration implies."""
        if component in PICKLES:
            require_content(self._folder / PICKLES[component])
        if component in CONFIGS and not self._parses(component):
            self._checkpoint.tensors(component)
            return
        for module in _WHOLE:
            if networks.COMPONENTS[module] == component:
                network = networks.load(module, self._checkpoint, None)
                if isinstance(network, EvaVision):
                    self._clip = network.sizes
        if component == "text_encoder":
            _require_one_embedding(self._checkpoint.tensors(component))

    def faces(self) -> None:
        widths: list[int | None] = []
        for file in (DETECTOR, RECOGNISER):
            self.attempt(file, lambda file=file: widths.append(_onnx_width(self._folder / file, _ONNX_OUTPUTS[file])))  # type: ignore[misc]
        transformer = CONFIGS["transformer"]
        if {DETECTOR, RECOGNISER, PICKLES["clip"]} & self.found.keys() or not self._parses("local_extractor"):
            return
        sizes, own = self._clip, self._checkpoint.config.local_extractor
        for name, value, wanted, theirs in (
            ("LFE_vit_dim", own.vit_dim, sizes["clip_dim"], "the width of"),
            ("LFE_num_scale", own.num_scale, sizes["scales"], "the number of states that are taken from"),
        ):
            if value != wanted:
                self._note(transformer, f"{name} is {value}, wanted {wanted}, {theirs} {PICKLES['clip']}")
        embedding = widths[-1]
        if embedding is not None and own.id_dim != (wanted := embedding + sizes["clip_out"]):
            both = f"the widths of {RECOGNISER} and {PICKLES['clip']} together"
            self._note(transformer, f"LFE_id_dim is {own.id_dim}, wanted {wanted}, {both}")

    def _parses(self, part: str) -> bool:
        """Whether a part's own configuration is sound, which may still not fit to another's."""
        try:
            getattr(self._checkpoint.config, part)
        except CheckpointInvalid:
            return False
        return True

    def _note(self, file: str, problem: str) -> None:
        self.found.setdefault(file, []).append(problem.removeprefix(f"{file}: "))


def _require_one_embedding(tensors: dict[str, Tensor]) -> None:
    other = tensors.get(_EMBEDDING)
    if other is not None and not torch.equal(other, tensors[_SHARED]):
        raise CheckpointInvalid(f"{_EMBEDDING} differs from {_SHARED}; only one embedding is supported")


def _onnx_width(path: Path, outputs: int) -> int | None:
    """Last dimension of the first output of an ONNX file; None where it is not a number. Raises `CheckpointInvalid`."""
    require_content(path)
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except OSError:
        raise
    except Exception as error:  # protobuf's DecodeError has no public name
        raise CheckpointInvalid(f"not an ONNX file ({one_line(error)})") from error
    if len(graph.output) != outputs:
        raise CheckpointInvalid(f"has {len(graph.output)} outputs, expected {outputs}")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.initializer):
        raise CheckpointInvalid("has its weights in other files; save it as one file")
    dims = graph.output[0].type.tensor_type.shape.dim
    return int(dims[-1].dim_value) or None if dims else None
