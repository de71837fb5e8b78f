"""Signs the videos of answers, with the door's certificate: no video leaves it unsigned where it has one."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import Any

from consisid_runtime.errors import SigningFailed
from consisid_runtime.provenance.credentials import Signer, sign

log = logging.getLogger(__name__)

_VIDEO = "video"


class Signing:
    """Of one door. Without a signer, answers stay as they are."""

    def __init__(self, signer: Signer | None = None) -> None:
        self._signer = signer

    async def sign_answer(self, message: Any) -> Any:
        """A ModelInferResponse, its video signed in a thread where it has one; raw frames carry no signature.

        Raises `SigningFailed`, whose reason is in the log.
        """
        if self._signer is None:
            return message
        for place, tensor in enumerate(message.outputs):
            if tensor.name == _VIDEO:
                signed = await self._signed(message.raw_output_contents[place])
                message.raw_output_contents[place] = signed
                tensor.shape[:] = [len(signed)]
        return message

    async def _signed(self, mp4: bytes) -> bytes:
        assert self._signer is not None
        try:
            return await asyncio.to_thread(sign, mp4, self._signer)
        except Exception as error:
            reference = secrets.token_hex(4)
            log.error("error %s", reference, exc_info=error)
            raise SigningFailed(
                f"the video could not be signed; the server's log has it as error {reference}"
            ) from None
