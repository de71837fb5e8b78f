"""Keeps PyTorch's float32 products float32 on a GPU: its default lets cuDNN round their factors to TF32's 10 bits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_lock = threading.Lock()
_users = 0
_before: list[str] = []


@contextmanager
def full_float32() -> Iterator[None]:
    """No TF32 in convolutions and matrix products while the body runs, in any thread.

    PyTorch has these settings for the process only: the first of several bodies that overlap changes them, the last
    one puts back what it found, so that an application keeps its own.
    """
    global _users, _before
    with _lock:
        if _users == 0:
            _before = [operator.fp32_precision for operator in _operators()]
            _set(["ieee"] * len(_before))
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _set(_before)


def _operators() -> tuple[Any, ...]:
    backends: Any = torch.backends
    return backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul


def _set(precisions: list[str]) -> None:
    for operator, precision in zip(_operators(), precisions, strict=True):
        operator.fp32_precision = precision
