"""A GPU without a C compiler is refused before anything is loaded, and only where kernels are to run."""

import shutil
import sysconfig
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from consisid_runtime.engines import torch as subject
from consisid_runtime.engines.compiler import require_compiler
from consisid_runtime.errors import MissingExtra


@pytest.fixture
def headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sysconfig, "get_paths", lambda scheme: {"include": str(tmp_path)})
    monkeypatch.setenv("CC", "cc")
    (tmp_path / "Python.h").touch()
    return tmp_path / "Python.h"


def test_what_is_missing_is_named(headers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_compiler()
    headers.unlink()
    with pytest.raises(MissingExtra, match=r"needs Python's headers \(no Python\.h"):
        require_compiler()
    monkeypatch.delenv("CC")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingExtra, match=r"needs a C compiler .* and Python's headers"):
        require_compiler()


@pytest.mark.parametrize(
    ("name", "precision", "device", "asked"),
    [
        ("dit_step", "bf16", "cuda", True),
        ("dit_step", "fp8", "cuda", True),
        ("vae_decoder_first", "bf16", "cuda", True),
        ("vae_decoder_next", "fp16", "cuda", True),
        ("dit_step", "fp32", "cuda", False),
        ("vae_decoder_next", "fp32", "cuda", False),
        ("dit_step", "bf16", "cpu", False),
        ("dit_step", "fp8", "cpu", False),
        ("text_encoder", "bf16", "cuda", False),
    ],
)
def test_only_where_kernels_run(
    name: str, precision: str, device: str, asked: bool, headers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Loading(Exception):
        pass

    def load(*_: object) -> None:
        raise Loading

    headers.unlink()
    monkeypatch.setattr(subject.networks, "load", load)
    monkeypatch.setattr(subject, "torch_device", torch.device)
    bundle: Any = SimpleNamespace(
        device=device,
        config=None,
        loaded={},
        signature=lambda name: None,
        manifest={"modules": {name: {"precision": precision}}},
    )
    with pytest.raises(MissingExtra if asked else Loading):
        subject.load_module(bundle, name)
