"""Requests to `consisid_stream`: image, prompt, parameters and a checkpoint that is a true one's, but for changes."""

from __future__ import annotations

import functools
import json
import os
from random import Random
from typing import Any, NamedTuple

import checkpoint_cases
from byte_changes import changed
from image_cases import make as image
from json_changes import encoded, text, value

from consisid_runtime.bundle import Bundle
from consisid_runtime.options import check_prompt
from consisid_runtime.stages.face.faces import Faces
from consisid_runtime.stages.flow import in_process
from consisid_runtime.stages.table import load
from consisid_runtime.stages.work import Work
from consisid_runtime.wire import read_parameters

_PARAMETERS = {"steps": 3, "frames": 9, "seed": 5, "checkpoint_seconds": 1e-9, "previews": True}


class Asked(NamedTuple):
    image: bytes
    prompt: str
    parameters: str
    checkpoint: bytes | None


class _Served:
    """What a request is done with, and a true one."""

    def __init__(self) -> None:
        from consisid_export.checkpoint.example import photograph

        self._bundle = Bundle.open(os.environ["FUZZED_BUNDLE"], device="cpu")
        self._stages, self._work = load(self._bundle), Work(self._bundle, Faces())
        self.photo = photograph()
        found = [event.checkpoint for event in self.events(Asked(self.photo, "a man", json.dumps(_PARAMETERS), None))]
        self.checkpoint = next(checkpoint for checkpoint in found if checkpoint)

    def events(self, asked: Asked) -> list[Any]:
        options, extras = read_parameters(asked.parameters)
        values = {"image": asked.image, "prompt": check_prompt(asked.prompt)}
        plan, call = self._bundle.plan(options), in_process(self._stages)
        return list(self._work.start(call, values, plan, extras=extras, checkpoint=asked.checkpoint))


_served = functools.cache(_Served)


def make(chance: Random) -> Asked:
    true = _served()
    parameters: dict[str, Any] = dict(_PARAMETERS)
    if chance.random() < 0.3:
        parameters[chance.choice(["previews", "checkpoint_seconds", "raw_frames", "seed", "fps"])] = value(chance)
    written = json.dumps(parameters).encode() if chance.random() < 0.7 else encoded(chance, parameters)
    checkpoint: bytes | None = true.checkpoint
    if chance.random() < 0.8:
        checkpoint = checkpoint_cases.rewritten(chance, true.checkpoint)
    elif chance.random() < 0.5:
        checkpoint = changed(chance, true.checkpoint) if chance.random() < 0.7 else None
    return Asked(
        true.photo if chance.random() < 0.9 else image(chance),
        "a man" if chance.random() < 0.9 else text(chance),
        written.decode(errors="replace"),
        checkpoint,
    )


def run(case: Asked) -> None:
    assert _served().events(case)
