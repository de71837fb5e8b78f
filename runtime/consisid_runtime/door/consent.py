"""Asks the operator's function whether a request may be carried out, before it takes a place in the queue."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time

from consisid_runtime.door.limits import Limits
from consisid_runtime.door.request import Asked
from consisid_runtime.errors import ConsisIDError, HookFailed, ServerTimeout
from consisid_runtime.provenance.hooks import ConsentHook, check_consent

log = logging.getLogger(__name__)


class Consent:
    """Of one door. Without a function, everything may be carried out."""

    def __init__(self, hook: ConsentHook | None = None, limits: Limits = Limits()) -> None:  # noqa: B008  it is frozen
        self._hook = hook
        self._running = asyncio.Semaphore(limits.consents)

    async def ask(self, asked: Asked, caller: str, until: float) -> None:
        """Call the function in a thread.

        Args:
            caller: whom the caller's address belongs to.
            until: the request's deadline, of `time.monotonic`.

        Raises `ConsentRefused`; `HookFailed` where the function fails, whose reason is in the log; `ServerTimeout`.
        """
        if self._hook is None or (asked.image is None and asked.prompt is None):  # to forget a face takes no consent
            return
        try:
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                await self._running.acquire()
                await self._ask(self._hook, asked, caller)
        except TimeoutError:
            raise ServerTimeout("the deadline passed while consent was asked for") from None

    async def _ask(self, hook: ConsentHook, asked: Asked, caller: str) -> None:
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[ConsisIDError | None] = loop.create_future()

        def end(refusal: ConsisIDError | None) -> None:
            self._running.release()
            if not answered.done():  # else the caller has left
                answered.set_result(refusal)

        def call() -> None:
            refusal = _refusal(hook, asked, caller)
            try:
                loop.call_soon_threadsafe(end, refusal)
            except RuntimeError:  # the door has stopped
                log.warning("consent was answered after the door had stopped")

        # No pool: a function that never returns would keep the process from ending.
        threading.Thread(target=call, name="consent", daemon=True).start()
        if refusal := await answered:
            raise refusal


def _refusal(hook: ConsentHook, asked: Asked, caller: str) -> ConsisIDError | None:
    try:
        check_consent(hook, asked.image or b"", asked.prompt or "", asked.options, caller)
    except ConsisIDError as error:
        return error
    except BaseException as error:  # the thread would end without an answer
        reference = secrets.token_hex(4)
        log.error("error %s", reference, exc_info=error)
        return HookFailed(f"consent could not be asked for; the server's log has it as error {reference}")
    return None
