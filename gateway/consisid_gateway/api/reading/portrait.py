"""The image of a request: a file, or a data URL in JSON. Nothing is ever fetched."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from consisid_runtime.errors import ImageUnreadable, InvalidOption, RequestTooLarge
from consisid_runtime.stages.face.formats.opening import check_image

_HEAD = re.compile(r"data:(image/[\w.+-]{1,40})?(;[\w.+-]{1,40}=[\w.+-]{1,40}){0,4};base64,", re.ASCII)
_LONGEST_HEAD = 500


def portrait_of(name: str, value: Any, most: int) -> bytes:
    """A portrait's bytes, checked as far as that is possible without decoding pixels.

    Args:
        value: a file's bytes, or `{"image_url": "data:image/…;base64,…"}`.
        most: bytes of the file.

    Raises `InvalidOption` for another value, `RequestTooLarge`, and as `check_image`.
    """
    content = value if isinstance(value, bytes) else _from_url(name, value)
    if len(content) > most:
        raise RequestTooLarge(f"{name} has {len(content)} bytes, at most {most} are read")
    if not content:
        raise ImageUnreadable(f"{name} is empty")
    check_image(content)
    return content


def _from_url(name: str, value: Any) -> bytes:
    url = value.get("image_url") if isinstance(value, dict) and value.keys() == {"image_url"} else None
    if not isinstance(url, str):
        raise InvalidOption(
            f'{name} must be a file, or in JSON {{"image_url": "data:image/jpeg;base64,…"}}'
            + (", with no other key" if isinstance(value, dict) else "")
        )
    head = _HEAD.match(url[:_LONGEST_HEAD])
    if head is None:
        raise InvalidOption(f"image_url must begin with data:image/…;base64, as URLs are not fetched; got {url[:40]!r}")
    try:
        return base64.b64decode(url[head.end() :], validate=True)
    except (ValueError, binascii.Error):
        raise InvalidOption(f"the data of {name} is not Base64 (A–Z a–z 0–9 + / and the = at its end)") from None
