"""The models that Triton server's Python backend runs: one class a stage, no logic of their own.

Every stage checks all options before it works, so that a bad one fails at once and not after the denoising.
The server sets `wire.BUNDLE_VARIABLE`; each model is a process of its own and opens the bundle once.
"""

from __future__ import annotations

import json
import os
import secrets
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import triton_python_backend_utils as pb_utils

from consisid_runtime.bundle import Bundle
from consisid_runtime.errors import ConsisIDError, InvalidOption, ServerError
from consisid_runtime.options import Geometry, Plan, plan
from consisid_runtime.serve.tensor_checks import check_tensors, checkpoint_dims, read_report, request_dims
from consisid_runtime.signatures import (
    DECODE_MODEL,
    DENOISE_MODEL,
    ENCODE_MODEL,
    FACE_MODEL,
    TEXT_MODEL,
    Signature,
)
from consisid_runtime.wire import BUNDLE_VARIABLE, PACKAGE_VARIABLE, describe, read_parameters

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

# Bytes. gRPC sends an error's text as a header, one byte outside of ASCII as three, and both sides refuse headers above
# 8 KiB.
_LONGEST_ERROR = 2000

_TRITON_NAMES = {"INVALID_ARGUMENT": "INVALID_ARG"}
"""The gRPC statuses that Triton server calls by another name; statuses that it lacks become INTERNAL."""


class Model:
    """What the stages share: the bundle, the options, tensors by port name, errors with codes.

    A subclass names its signature, loads itself in `load` and answers one request in `run`.
    """

    signature: ClassVar[Signature]
    dims: Mapping[str, int] = MappingProxyType({})
    """The checkpoint's sizes by their symbols, as far as the inputs have them."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Called by the server once, before the first request."""
        try:
            _require_package(os.environ.get(PACKAGE_VARIABLE))
            self.geometry = self.load()
        except ConsisIDError as error:
            raise pb_utils.TritonModelException(error.wire()) from error

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Called by the server; one response a request, in order."""
        return [self._answer(request) for request in requests]

    def load(self) -> Geometry:
        """Open what the stage needs; returns the checkpoint's sizes."""
        raise NotImplementedError

    def run(self, inputs: Arrays, plan: Plan, *, raw_frames: bool) -> Mapping[str, NDArray[Any]]:
        """Answer one request. Inputs and outputs by port name; UINT8, FP32, or object arrays of bytes."""
        raise NotImplementedError

    def _answer(self, request: Any) -> Any:
        try:
            options, raw_frames = read_parameters(request.parameters())
            resolved = plan(options, self.geometry)
            inputs = _inputs(self.signature, request)
            check_tensors(self.signature.bind(self.dims).bind(request_dims(resolved)), inputs)
            outputs = self.run(inputs, resolved, raw_frames=raw_frames)
            tensors = [pb_utils.Tensor(port.name, outputs[port.name]) for port in self.signature.outputs]
            return pb_utils.InferenceResponse(output_tensors=tensors)
        except ConsisIDError as error:
            return _failure(error.wire(), error.grpc)
        except Exception:
            # What went wrong may name paths or memory of the server: that is for its log, not for the client.
            reference = secrets.token_hex(4)
            pb_utils.Logger.log_error(f"{self.signature.name} failed, error {reference}\n{traceback.format_exc()}")
            return _failure(f"INTERNAL: {self.signature.name} failed; the server's log has it as error {reference}")


class BundleModel(Model):
    """A stage of the bundle that the server was started on."""

    bundle: Bundle

    def load(self) -> Geometry:
        self.bundle = Bundle.open(os.environ[BUNDLE_VARIABLE])
        self.dims = checkpoint_dims(self.bundle)
        self.open(self.bundle)
        return self.bundle.geometry

    def open(self, bundle: Bundle) -> None:
        """Make the stage."""
        raise NotImplementedError


class FaceModel(BundleModel):
    signature = FACE_MODEL

    def open(self, bundle: Bundle) -> None:
        from consisid_runtime.stages.face.reader import FaceReader

        self.stage = FaceReader(bundle)

    def run(self, inputs: Arrays, plan: Plan, *, raw_frames: bool) -> Mapping[str, NDArray[Any]]:
        started = time.perf_counter()
        face = self.stage(inputs["image"].tobytes(), plan)
        return {
            "face_tokens": face.tokens.numpy(force=True),
            "portrait": face.portrait,
            "keypoints": face.keypoints,
            "face_info": _report(started, face.info),
        }


class TextModel(BundleModel):
    signature = TEXT_MODEL

    def open(self, bundle: Bundle) -> None:
        from consisid_runtime.stages.text import TextReader

        self.stage = TextReader(bundle)

    def run(self, inputs: Arrays, plan: Plan, *, raw_frames: bool) -> Mapping[str, NDArray[Any]]:
        started = time.perf_counter()
        text = self.stage(_prompt(inputs["prompt"]), plan)
        return {"text_states": text.states.numpy(force=True), "text_info": _report(started, text.info)}


class EncodeModel(BundleModel):
    signature = ENCODE_MODEL

    def open(self, bundle: Bundle) -> None:
        from consisid_runtime.stages.encode import Encoder

        self.stage = Encoder(bundle)

    def run(self, inputs: Arrays, plan: Plan, *, raw_frames: bool) -> Mapping[str, NDArray[Any]]:
        started = time.perf_counter()
        moments = self.stage(inputs["portrait"], inputs["keypoints"], plan)
        return {"image_moments": moments.numpy(force=True), "encode_info": _report(started)}


class DenoiseModel(BundleModel):
    signature = DENOISE_MODEL

    def open(self, bundle: Bundle) -> None:
        from consisid_runtime.stages.denoise import Denoiser

        self.stage = Denoiser(bundle)

    def run(self, inputs: Arrays, plan: Plan, *, raw_frames: bool) -> Mapping[str, NDArray[Any]]:
        import torch

        started = time.perf_counter()
        text, face, moments = (torch.tensor(inputs[port.name]) for port in self.signature.inputs)
        latents = self.stage(text, face, moments, plan)
        return {"latents": latents.numpy(force=True), "denoise_info": _report(started)}


class DecodeModel(BundleModel):
    signature = DECODE_MODEL

    def open(self, bundle: Bundle) -> None:
        from consisid_runtime.stages.decode import Decoder

        self.stage = Decoder(bundle)

    def run(self, inputs: Arrays, plan: Plan, *, raw_frames: bool) -> Mapping[str, NDArray[Any]]:
        import torch

        from consisid_runtime.video import encode_mp4

        started = time.perf_counter()
        frames = self.stage(torch.tensor(inputs["latents"]), plan)
        mp4 = encode_mp4(frames, plan.options.fps)
        stages = {name: read_report(name, inputs[f"{name}_info"][0]) for name in ("face", "text", "encode", "denoise")}
        stages["decode"] = {"seconds": time.perf_counter() - started}
        return {
            "video": np.frombuffer(mp4, np.uint8),
            "frames": frames if raw_frames else frames[:0],
            "info": _json(describe(plan, self.bundle.fingerprint, stages)),
        }


def _inputs(signature: Signature, request: Any) -> dict[str, NDArray[Any]]:
    return {p.name: pb_utils.get_input_tensor_by_name(request, p.name).as_numpy() for p in signature.inputs}


def _prompt(tensor: NDArray[Any]) -> str:
    try:
        return str(tensor[0], "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidOption(f"the prompt is not UTF-8: {error.reason} at byte {error.start}") from None


def _require_package(launcher: str | None) -> None:
    """Raises `ServerError` where the launcher, which names its package, runs other code than this process."""
    here = Path(__file__).resolve().parents[1]
    if launcher is not None and Path(launcher) != here:
        raise ServerError(f"the server was launched from {launcher}, its models import {here}; keep one of the two")


def _report(started: float, info: Mapping[str, object] | None = None) -> NDArray[np.object_]:
    return _json({**(info or {}), "seconds": time.perf_counter() - started})


def _json(content: Mapping[str, object]) -> NDArray[np.object_]:
    return np.array([json.dumps(content).encode()], dtype=np.object_)


def _failure(text: str, grpc: str = ConsisIDError.grpc) -> Any:
    """A response with an error of this gRPC status; Triton server derives the HTTP status from it."""
    text = text.encode(errors="replace")[:_LONGEST_ERROR].decode(errors="ignore")
    kinds = pb_utils.TritonError
    error = kinds(text, getattr(kinds, _TRITON_NAMES.get(grpc, grpc), kinds.INTERNAL))
    return pb_utils.InferenceResponse(output_tensors=[], error=error)
