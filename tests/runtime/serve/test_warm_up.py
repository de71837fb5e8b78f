"""What a server runs before it is ready: on a GPU every network, in a request's sizes; on a CPU nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from consisid_runtime.bundle import Bundle
from consisid_runtime.options import Options
from consisid_runtime.plan import plan
from consisid_runtime.serve.readiness import warm_up as subject
from consisid_runtime.serve.readiness.warm_up import warm_up
from consisid_runtime.signatures import DYNAMIC, Signature
from consisid_runtime.stages.table import STAGES

Shapes = dict[str, list[int]]


class Engine:
    """Returns tensors without memory; remembers what it was called with."""

    def __init__(self, signature: Signature, place: str, calls: list[tuple[str, Mapping[str, Tensor]]]) -> None:
        self.device = torch.device(place)
        self._signature, self._calls = signature, calls

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self._calls.append((self._signature.name, inputs))
        sizes = {port.name: list(inputs[port.name].shape) for port in self._signature.inputs if port.name in inputs}
        shapes = {f"next_{name}": size for name, size in sizes.items() if name.startswith("cache_")}
        return {p.name: torch.empty(shapes.get(p.name, [1]), device=self.device) for p in self._signature.outputs}


@pytest.fixture
def open_bundle(torch_bundle_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    def opened(place: str) -> tuple[Bundle, list[tuple[str, Mapping[str, Tensor]]]]:
        bundle, calls = Bundle.open(torch_bundle_of(), device="cpu"), []  # type: ignore[var-annotated]
        monkeypatch.setattr(bundle, "_load", lambda name: Engine(bundle.signature(name), place, calls))
        for stage in STAGES:
            stage.load(bundle)
        return bundle, calls

    return opened


def test_every_network_runs_once_in_a_requests_sizes(open_bundle: Callable[[str], Any]) -> None:
    bundle, calls = open_bundle("meta")
    warm_up(bundle)
    assert [name for name, _ in calls] == list(bundle.loaded) and len(calls) == len(bundle.manifest["modules"])
    request, seen = plan(Options(), bundle.config.geometry), dict(calls)
    tokens = bundle.config.transformer.max_text_seq_length
    assert len(seen["dit_step"]["text_tokens"]) == 2  # prompts are read one by one
    assert seen["text_encoder"]["token_ids"].shape == (1, tokens) and not seen["text_encoder"]["token_ids"].is_cpu
    assert seen["text_encoder"]["token_ids"].dtype == torch.int64
    latents = seen["dit_step"]["latents"].shape
    assert latents[1] == request.latent_frames and latents[-1] == request.width // bundle.config.vae.spatial
    assert seen["vae_decoder_next"]["latents"].shape[2] == 2


def test_every_size_that_varies_is_known(torch_bundle_of: Callable[..., Path]) -> None:
    assert set(subject._sizes(Bundle.open(torch_bundle_of()))) == set(DYNAMIC)


def test_a_cpu_is_left_alone(open_bundle: Callable[[str], Any]) -> None:
    bundle, calls = open_bundle("cpu")
    warm_up(bundle)
    assert calls == []
