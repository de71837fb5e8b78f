"""The photograph that the demo, calibrations and tests show to the face networks."""

from __future__ import annotations

import io

from PIL import Image


def portrait() -> bytes:
    """A PNG of the public-domain photograph of Eileen Collins that scikit-image ships."""
    from skimage.data import astronaut

    buffer = io.BytesIO()
    Image.fromarray(astronaut()).save(buffer, "PNG")  # type: ignore[no-untyped-call]
    return buffer.getvalue()
