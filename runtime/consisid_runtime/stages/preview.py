"""What a video will look like, from its latents alone: a linear map from a latent's channels to a colour.

The map is fitted to one chart of known colours that went through the VAE's encoder; so it needs no decoder, and no
figures of a checkpoint. Latent frames after the first mix several frames: the first alone is shown.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from consisid_runtime.events import silent
from consisid_runtime.plan import Plan
from consisid_runtime.stages.table import STAGES, Values

if TYPE_CHECKING:
    from consisid_runtime.stages.flow import Call

_PATCHES = 16
"""Of the chart, along each edge."""
_LONG_EDGE = 360
_QUALITY = 80


def chart(size: int) -> NDArray[np.uint8]:
    """uint8 [size, size, 3] RGB: patches of colours from the whole cube, with soft edges; the same every time."""
    patches = np.random.default_rng(0).integers(0, 256, (_PATCHES, _PATCHES, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(patches).resize((size, size), Image.Resampling.BILINEAR))


class Preview:
    """Latents → JPEG. The map is fitted when it is first needed.

    Args:
        scaling: factor between the VAE's latents and the denoiser's.
    """

    def __init__(self, scaling: float) -> None:
        self._scaling = scaling
        self._map: NDArray[np.float32] | None = None

    def __call__(self, latents: Any, plan: Plan, call: Call) -> bytes:
        """The first frame as a JPEG whose longer edge has 360 pixels.

        Args:
            latents: clean ones as far as known, x0: float32 [1, F, C, h, w].
            call: runs the encode stage.
        """
        if self._map is None:
            self._map = self._fit(plan, call)
        first = _array(latents)[0, 0]
        pixels = np.moveaxis(first, 0, -1) @ self._map[:-1] + self._map[-1]
        image = Image.fromarray(np.clip(np.nan_to_num(pixels), 0, 255).astype(np.uint8))
        factor = _LONG_EDGE / max(image.size)
        size = round(image.width * factor), round(image.height * factor)
        out = io.BytesIO()
        image.resize(size, Image.Resampling.BICUBIC).save(out, "JPEG", quality=_QUALITY)
        return out.getvalue()

    def _fit(self, plan: Plan, call: Call) -> NDArray[np.float32]:
        """float32 [C + 1, 3]: least squares between the chart's latents and the colours under them."""
        import torch

        colours = chart(max(plan.height, plan.width))
        values: Values = {"portrait": colours, "keypoints": torch.zeros(5, 2)}
        stage = next(stage for stage in STAGES if stage.name == "encode")
        moments = _array(call(stage, values, plan, {"text": {"seconds": 0.0}}, silent)[0]["image_moments"])[0, 0]
        latents = np.moveaxis(moments[: len(moments) // 2], 0, -1) * self._scaling
        height, width = latents.shape[:2]
        small = Image.fromarray(colours).resize((width, height), Image.Resampling.BOX)
        known = np.concatenate([latents.reshape(height * width, -1), np.ones((height * width, 1))], axis=1)
        wanted = np.asarray(small, np.float64).reshape(height * width, 3)
        fitted: NDArray[np.float32] = np.linalg.lstsq(known, wanted, rcond=None)[0].astype(np.float32)
        return fitted


def _array(value: Any) -> NDArray[np.float32]:
    return value if isinstance(value, np.ndarray) else np.asarray(value.numpy(force=True))
