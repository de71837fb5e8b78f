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
from consisid_runtime.door.foresight import Foresight, response_of
from consisid_runtime.door.limits import Limits
from consisid_runtime.door.meters import Meters
from consisid_runtime.door.records import CURRENT, Request
from consisid_runtime.door.request import Asked
from consisid_runtime.door.server.supervisor import Supervisor
from consisid_runtime.door.server.upstream import Upstream, contents
from consisid_runtime.door.server.waiting import unless
from consisid_runtime.door.signing import Signing
from consisid_runtime.errors import RequestCancelled, ServerDied, ServerTimeout
from consisid_runtime.events import QUEUE, Event
from consisid_runtime.plan import Plan
from consisid_runtime.serve.ticket import Ticket
from consisid_runtime.stages.table import STAGES

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
        foresight: Foresight,
        supervisor: Supervisor,
        consent: Consent,
        signing: Signing,
        meters: Meters,
    ) -> None:
        self._limits, self._queue, self._demand, self._supervisor = limits, queue, demand, supervisor
        self._foresight, self._consent, self._signing, self._meters = foresight, consent, signing, meters
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
        """The ModelInferResponse with the video, or with an estimate. Cancelled where the caller leaves.

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
        plan = self._plan(asked)
        if asked.estimates:
            return asked.answer(response_of(self._foresight.estimate(plan, urgent=asked.urgent)))
        self.require_room(owner)
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
        work = asyncio.create_task(self._work(asked, gone := asyncio.Event(), line, on_event))
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

    async def _work(self, asked: Asked, gone: asyncio.Event, line: Request, on_event: Callable[[Event], None]) -> Any:
        success = False
        try:
            upstream = await self._begin(asked, gone)
            # Anew: the server may serve another bundle than when the request came.
            plan = self._plan(asked)

            def pass_on(event: Event) -> None:
                line.saw(event)
                if not gone.is_set():
                    self._queue.expect(event.seconds_left, urgent=asked.urgent)
                    on_event(event)

            answer = await self._ask(upstream, asked, gone, pass_on)
            success, line.info = not gone.is_set(), _info(answer)
            if success and not asked.trial:
                self._learn(plan, line.info, whole=asked.checkpoint is None)
                if not asked.quick:
                    self._foresight.learn(plan)
            return answer
        finally:
            self._queue.leave(urgent=asked.urgent, success=success and not asked.quick)

    def _plan(self, asked: Asked) -> Plan | None:
        """Of the video that it asks for or about; raises what `Demand.plan` does."""
        return self._demand.plan(asked.options) if asked.estimates or not asked.quick else None

    async def _begin(self, asked: Asked, gone: asyncio.Event) -> Upstream:
        """The server that the request, whose turn has come, computes on from now."""
        upstream, patience = None, _TRIAL_PATIENCE if asked.trial else self._limits.patience
        while upstream is None or upstream is not self._supervisor.upstream:  # it may be replaced in the last moment
            left = RequestCancelled("the caller left before the request was begun")
            upstream = await unless(gone, self._supervisor.serving(patience), left)
            self._foresight.watch(upstream)
        self._queue.begin(urgent=asked.urgent)
        return upstream

    def _learn(self, plan: Plan | None, info: Mapping[str, Any], *, whole: bool) -> None:
        self._meters.computed(info, whole=whole)
        if whole and (took := _seconds(info)) is not None:
            self._demand.learn(plan, took)

    async def _ask(
        self, upstream: Upstream, asked: Asked, gone: asyncio.Event, on_event: Callable[[Event], None]
    ) -> Any:
        """The answer; once nobody waits for it, the models are told so, and it is awaited all the same.

        A server whose models do not end, or stand still, is started again.
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
            if upstream.hurt:
                await self._supervisor.restart(upstream)
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


def _seconds(info: Mapping[str, Any]) -> dict[str, float] | None:
    """That each stage took which computed; None where it does not say."""
    try:
        took = {stage.name: float(info["seconds"][stage.name]) for stage in STAGES if stage.name in info["seconds"]}
        if info.get("face", {}).get("face_cached"):
            took.pop("face", None)
        fits = took["denoise"] > 0 and math.isfinite(sum(took.values()))
    except (KeyError, ValueError, TypeError, AttributeError):
        return None
    return took if fits else None
