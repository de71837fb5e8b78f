"""Requests to the composing models: true inputs of each stage, of which shapes, values and reports are changed.

The models are the served ones, on a bundle, with a stand-in for the Python backend of Triton server.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from random import Random
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from byte_changes import changed
from image_cases import make as image
from json_changes import encoded, text, value, with_changes
from numpy.typing import NDArray
from parameter_cases import VALID

from consisid_runtime.errors import ConsisIDError, ServerError, from_wire
from consisid_runtime.signatures import Port
from consisid_runtime.stages.table import STAGES
from consisid_runtime.wire import BUNDLE_VARIABLE, DEVICE_VARIABLE, INFO

Arrays = dict[str, NDArray[Any]]

_BASE = {"steps": 2, "frames": 9}
_COSTLY = {"steps", "frames", "height", "width", "tier", "consisid_packed"}
"""Options whose valid values take longer than a case may: an ordinary video does."""
_models: dict[str, Any] = {}


class _Tensor:
    def __init__(self, name: str, array: NDArray[Any]) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> NDArray[Any]:
        return self._array


class _Request:
    def __init__(self, parameters: str, inputs: Arrays) -> None:
        self._parameters, self.inputs = parameters, inputs

    def parameters(self) -> str:
        return self._parameters

    def request_id(self) -> str:
        return "fuzzed"


class _Failure(str):
    """The text of an error; its status is not looked at."""

    INTERNAL = "INTERNAL"

    def __new__(cls, text: str, status: str = "") -> _Failure:
        return super().__new__(cls, text)


_log: list[str] = []


def _backend() -> ModuleType:
    backend: Any = ModuleType("triton_python_backend_utils")
    backend.Tensor, backend.TritonError, backend.TritonModelException = _Tensor, _Failure, RuntimeError
    backend.InferenceResponse = lambda output_tensors, error=None: SimpleNamespace(tensors=output_tensors, error=error)
    backend.get_input_tensor_by_name = lambda request, name: (
        _Tensor(name, request.inputs[name]) if name in request.inputs else None
    )
    backend.Logger = SimpleNamespace(log_error=_log.append)
    return backend


@functools.cache
def _chain() -> Arrays:
    """Load all models and run them once: the inputs that cases begin with."""
    from consisid_export.checkpoint.example import photograph

    sys.modules["triton_python_backend_utils"] = _backend()
    os.environ |= {BUNDLE_VARIABLE: os.environ["FUZZED_BUNDLE"], DEVICE_VARIABLE: "cpu"}
    from consisid_runtime.serve.models import served

    found: Arrays = {
        "image": np.frombuffer(photograph(), np.uint8),
        "prompt": np.array([b"a man walks"], np.object_),
    }
    for stage in STAGES:
        _models[stage.name] = served(stage.name)()
        _models[stage.name].initialize({})
        inputs = {port.name: found[port.name] for port in stage.signature.inputs if not port.optional}
        found |= {tensor.name(): tensor.as_numpy() for tensor in _answer(stage.name, json.dumps(_BASE), inputs)}
    return found


def _answer(model: str, parameters: str, inputs: Arrays) -> list[_Tensor]:
    """The tensors of an answer. Raises its error."""
    _log.clear()
    (answer,) = _models[model].execute([_Request(parameters, inputs)])
    if answer.error is not None:
        error = from_wire(answer.error)
        if type(error) in (ConsisIDError, ServerError):
            raise RuntimeError(_log[-1] if _log else str(error))
        raise error
    found: list[_Tensor] = answer.tensors
    return found


def make(chance: Random) -> tuple[str, str, Arrays]:
    """Model, parameters and inputs."""
    stage = chance.choice(STAGES)
    inputs = {}
    for port in stage.signature.inputs:
        if not port.optional or chance.random() < 0.4:
            inputs[port.name] = _first(chance, port)
    for name in chance.sample(sorted(inputs), chance.randint(0, min(2, len(inputs)))):
        port = next(port for port in stage.signature.inputs if port.name == name)
        inputs[name] = _changed(chance, port, inputs[name])
    parameters: dict[str, Any] = dict(_BASE)
    for name in chance.sample(sorted(VALID.keys() - _COSTLY), chance.randrange(3)):
        parameters[name] = VALID[name] if chance.random() < 0.6 else value(chance)
    written = encoded(chance, parameters if chance.random() < 0.97 else value(chance)).decode(errors="replace")
    return stage.name, written, inputs


def _first(chance: Random, port: Port) -> NDArray[Any]:
    """True, but for those that no model answers with: the range of a run, and whether a face is to be embedded."""
    if port.name == "span":
        pair = chance.choice(
            [(0, 1), (1, 2), (0, 2), (2, 2), (2, 1), (-1, 1), (1, 3), (0, 2**62), (-(2**63), 2**63 - 1)]
        )
        return np.array(pair, np.int64)
    if port.name == "embed":
        return np.array([chance.randrange(2)], np.int64)
    return _chain()[port.name]


def _changed(chance: Random, port: Port, array: NDArray[Any]) -> NDArray[Any]:
    if port.name == "image":
        return np.frombuffer(image(chance), np.uint8)
    if port.dtype == "BYTES":
        return np.array([_text(chance, port)], np.object_)
    what = chance.randrange(6)
    if what < 2:
        return _shaped(chance, array)
    found = np.array(array)
    if found.dtype == np.uint8 and found.ndim == 1:
        return np.frombuffer(changed(chance, found.tobytes()), np.uint8)
    flat = found.reshape(-1)
    count = chance.choice([1, 1, 7, flat.size])
    places = np.random.default_rng(chance.randrange(2**32)).integers(0, max(1, flat.size), count)
    if found.dtype == np.float32:
        flat[places] = np.float32(
            chance.choice([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e20, -1e20, 1e5, 1e-45, -0.0, 0.0])
        )
    elif found.dtype == np.int64:
        flat[places] = chance.choice([0, 1, 2, -1, 2**31, 2**63 - 1, -(2**63)])
    else:
        flat[places] = chance.choice([0, 255])
    return found


def _shaped(chance: Random, array: NDArray[Any]) -> NDArray[Any]:
    """Another number of axes, or another size of one."""
    axis = chance.randrange(array.ndim)
    what = chance.randrange(6)
    if what == 0:
        return array[None]
    if what == 1:
        return array[0] if len(array) else array.reshape(-1)
    if what == 2:
        return array.reshape(-1)
    if what == 3:
        return np.swapaxes(array, axis, -1)
    sizes = list(array.shape)
    sizes[axis] = chance.choice([0, 1, 2, 3, sizes[axis] - 1, sizes[axis] + 1, 2 * sizes[axis]])
    return np.resize(array, sizes) if array.size else np.zeros(sizes, array.dtype)


def _text(chance: Random, port: Port) -> bytes:
    if port.name.endswith(INFO):
        report = with_changes(chance, json.loads(_chain()[port.name][0]))
        return encoded(chance, report if chance.random() < 0.9 else value(chance))
    found = text(chance).encode(errors="surrogatepass")
    return changed(chance, found) if chance.random() < 0.3 else found


def run(case: tuple[str, str, Arrays]) -> None:
    for tensor in _answer(*case):
        array = tensor.as_numpy()
        assert array.dtype != np.float32 or np.isfinite(array).all(), f"{tensor.name()} is not finite"
