"""One request from its admission to its answer, or to its end where the caller leaves or its deadline passes."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from consisid_runtime.door.admission.demand import Demand
from consisid_runtime.door.admission.queue import Queue
from consisid_runtime.door.consent import Consent
from consisid_runtime.door.limits import Limits
from consisid_runtime.door.meters import Meters
from consisid_runtime.door.records import CURRENT, Request
from consisid_runtime.door.request import Asked
from consisid_runtime.door.signing import Signing
from consisid_runtime.door.supervisor import Supervisor
from consisid_runtime.door.upstream import Upstream, contents
from consisid_runtime.errors import RequestCancelled, ServerDied, ServerTimeout
from consisid_runtime.events import QUEUE, Event
from consisid_runtime.plan import Plan
from consisid_runtime.serve.ticket import Ticket

_TRIAL_PATIENCE = 1.0
"""Seconds for a server that is started again: who sends a trial wants to hear of that."""


def _nowhere(event: Event) -> None:
    pass


class Dispatch:
    """For one event loop."""

    def __init__(
        self,
        limits: Limits,
        queue: Queue,
        demand: Demand,
        supervisor: Supervisor,
        consent: Consent,
        signing: Signing,
        meters: Meters,
    ) -> None:
        self._limits, self._queue, self._demand, self._supervisor = limits, queue, demand, supervisor
        self._consent, self._signing, self._meters = consent, signing, meters
        self._works: set[asyncio.Task[Any]] = set()

    def require_room(self, owner: str) -> None:
        """Raises `Busy` where a request of this owner would be refused: before it is read."""
        self._queue.require_room(owner)

    async def run(
        self,
        asked: Asked,
        owner: str,
        seconds: float | None = None,
        *,
        line: Request,
        on_event: Callable[[Event], None] = _nowhere,
    ) -> Any:
        """The ModelInferResponse with the video. Cancelled where the caller leaves.

        Args:
            owner: whom the caller's address belongs to.
            seconds: until the deadline that the protocol itself carries; None without one.
            line: hears when the request need not wait any more, and how far it is.
            on_event: called with each event, the first as soon as the request is admitted.

        Raises typed errors. The turn lasts until the models have ended, also where nobody waits any more.
        """
        until = time.monotonic() + min(
            left for left in (seconds, asked.seconds, self._limits.deadline) if left is not None
        )
        plan = self._demand.plan(asked.options)
        if not asked.quick and (needed := self._demand.at_least(plan)) > until - time.monotonic():
            raise ServerTimeout(
                f"such a video takes at least {needed:.1f} s, longer than the request's deadline; it was not begun"
            )
        if asked.trial:
            self._queue.require_idle()
        await self._consent.ask(asked, owner, until)
        await self._queue.enter(
            owner,
            until,
            urgent=asked.urgent,
            seconds=0.0 if asked.quick else self._demand.seconds(plan),
            moved=lambda position, left: on_event(Event(QUEUE, 0, 1, position, left)),
        )
        line.take_turn()
        work = asyncio.create_task(self._work(asked, plan, gone := asyncio.Event(), line, on_event))
        self._works.add(work)
        work.add_done_callback(self._done)
        try:
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                return await self._signing.sign_answer(asked.answer(await asyncio.shield(work)))
        except asyncio.CancelledError:
            if work.cancelled():  # by `close`, and not the caller by leaving
                raise ServerDied(
                    "the server was stopped while it worked on this request, which may be sent again"
                ) from None
            raise
        except TimeoutError:
            raise ServerTimeout("the deadline passed while the request was worked on; it was ended") from None
        finally:
            gone.set()

    async def close(self) -> None:
        """Let what runs end within the grace, then end it with `ServerDied`; what waits is refused."""
        self._queue.close()
        if self._works:
            await asyncio.wait(self._works, timeout=self._limits.grace)
        for work in self._works:
            work.cancel()

    def _done(self, work: asyncio.Task[Any]) -> None:
        self._works.discard(work)
        if not work.cancelled():
            work.exception()  # it was raised to the caller, unless that has left

    async def _work(
        self,
        asked: Asked,
        plan: Plan | None,
        gone: asyncio.Event,
        line: Request,
        on_event: Callable[[Event], None],
    ) -> Any:
        success = False
        try:
            patience = _TRIAL_PATIENCE if asked.trial else self._limits.patience
            upstream = await _unless(gone, self._supervisor.serving(patience))
            self._queue.begin(urgent=asked.urgent)

            def pass_on(event: Event) -> None:
                line.saw(event)
                if not gone.is_set():
                    self._queue.expect(event.seconds_left, urgent=asked.urgent)
                    on_event(event)

            answer = await self._ask(upstream, asked, gone, pass_on)
            success, line.info = not gone.is_set(), _info(answer)
            if success and not asked.trial:
                self._learn(plan, line.info, whole=asked.checkpoint is None)
            return answer
        finally:
            self._queue.leave(urgent=asked.urgent, success=success and not asked.quick)

    def _learn(self, plan: Plan | None, info: Mapping[str, Any], *, whole: bool) -> None:
        self._meters.computed(info, whole=whole)
        if whole and (took := _seconds(info)) is not None:
            self._demand.learn(plan, *took)

    async def _ask(
        self, upstream: Upstream, asked: Asked, gone: asyncio.Event, on_event: Callable[[Event], None]
    ) -> Any:
        """The answer; once nobody waits for it, the models are told so, and it is awaited all the same.

        A server whose models do not end is started again.
        """
        ticket = Ticket(upstream.port.tickets)
        answer = asyncio.create_task(upstream.stream(asked.message(ticket.name, CURRENT.get()), on_event))
        left = asyncio.create_task(gone.wait())
        try:
            await asyncio.wait({answer, left}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                told = time.monotonic()
                ticket.cancel()
                self._queue.expect(0.0, urgent=asked.urgent)
                await asyncio.wait({answer}, timeout=self._limits.stubborn)
                if not answer.done():
                    await self._supervisor.restart(upstream)
                    await asyncio.wait({answer})
                self._meters.released(time.monotonic() - told)
            ticket.close()
            return answer.result()
        finally:
            left.cancel()
            if not answer.done():  # by `close`: the server's folder goes soon, and the ticket with it
                ticket.cancel()
                answer.cancel()


def _info(answer: Any) -> dict[str, Any]:
    """Of an answer; empty where it has none."""
    try:
        found = json.loads(contents(answer)["info"])
    except (ValueError, KeyError):
        return {}
    return found if isinstance(found, dict) else {}


def _seconds(info: Mapping[str, Any]) -> tuple[float, float] | None:
    """That `denoise` took, and the other stages; None where it does not say."""
    try:
        took = {name: float(seconds) for name, seconds in info["seconds"].items()}
        denoise, others = took.pop("denoise"), sum(took.values())
    except (KeyError, ValueError, TypeError, AttributeError):
        return None
    return (denoise, others) if denoise > 0 and math.isfinite(denoise + others) else None


async def _unless(gone: asyncio.Event, wanted: Any) -> Any:
    """What `wanted` returns; raises `RequestCancelled` where the caller leaves before."""
    found, left = asyncio.ensure_future(wanted), asyncio.create_task(gone.wait())
    try:
        await asyncio.wait({found, left}, return_when=asyncio.FIRST_COMPLETED)
        if not found.done():
            raise RequestCancelled("the caller left before the request was begun")
        return found.result()
    finally:
        found.cancel()
        left.cancel()
