"""What the process of `consisid_stream` holds between requests, among Triton server's own metrics."""

from __future__ import annotations

import contextlib

import triton_python_backend_utils as pb_utils

NAME = "consisid_cache_bytes"


class HeldBytes:
    """The gauge `NAME` with the label cache="faces"."""

    def __init__(self) -> None:
        shown = "Of what was read of photographs, in the memory of the models."
        # Kept: Triton server forgets a metric whose family is gone.
        self._family = pb_utils.MetricFamily(name=NAME, description=shown, kind=pb_utils.MetricFamily.GAUGE)
        self._faces = self._family.Metric(labels={"cache": "faces"})

    def set(self, faces: int) -> None:
        """So many bytes now. Where that cannot be told, as in full shared memory, requests go on."""
        with contextlib.suppress(Exception):
            self._faces.set(faces)
