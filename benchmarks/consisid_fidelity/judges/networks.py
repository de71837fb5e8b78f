"""Opens a judge's ONNX file and runs it in batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from consisid_runtime.engines.onnxruntime import providers
from consisid_runtime.errors import CheckpointInvalid

BATCH = 16


class OnnxNetwork:
    """One ONNX file with one input, in float32.

    Args:
        path: the file.
        device: one of `engines.DEVICES`.
        threads: CPU threads.

    Attributes:
        shape: of the input; None for a dynamic size.
        outputs: names of the outputs.

    Raises `CheckpointInvalid` for a file that is not a network or has several inputs.
    """

    def __init__(self, path: Path, device: str, threads: int) -> None:
        import onnxruntime

        self._path = path
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.use_deterministic_compute = True
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=providers(device))
        except Exception as error:  # ONNX Runtime raises a different type for each kind of damage
            raise CheckpointInvalid(f"{path} is not a network that ONNX Runtime can open: {error}") from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise CheckpointInvalid(f"{path} has {len(inputs)} inputs; a judge needs exactly one")
        self._input: str = inputs[0].name
        self.shape = tuple(size if isinstance(size, int) else None for size in inputs[0].shape)
        self.outputs: list[str] = [port.name for port in self._session.get_outputs()]

    def __call__(self, images: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        """Outputs by name, each [N, …], of N inputs.

        Raises `CheckpointInvalid` when an output is not finite.
        """
        parts: list[list[Any]] = [
            self._session.run(self.outputs, {self._input: np.ascontiguousarray(images[start : start + BATCH])})
            for start in range(0, len(images), BATCH)
        ]
        found = {
            name: np.concatenate([part[i] for part in parts]).astype(np.float32) for i, name in enumerate(self.outputs)
        }
        if broken := [name for name, values in found.items() if not np.isfinite(values).all()]:
            raise CheckpointInvalid(f"{self._path} returns {', '.join(broken)} with values that are not finite")
        return found
