"""What every request to one bundle goes through, in process and served: checkpoints, previews, faces read before."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import TYPE_CHECKING

from consisid_runtime.engines import hardware
from consisid_runtime.events import Event, Progress, silent
from consisid_runtime.identity import Identity
from consisid_runtime.memory.peak import HostPeak, device_bytes, own_peak
from consisid_runtime.plan import Plan
from consisid_runtime.stages.checkpoint import Origin, read, request_digest, write
from consisid_runtime.stages.estimate import Estimate
from consisid_runtime.stages.face.faces import Faces
from consisid_runtime.stages.flow import Call, Course, flow
from consisid_runtime.stages.preview import Preview
from consisid_runtime.stages.rates import Rates
from consisid_runtime.stages.similarity import similarity
from consisid_runtime.stages.table import STAGES, Info, Values
from consisid_runtime.stages.trial import trial_options, trial_values
from consisid_runtime.wire import Extras

if TYPE_CHECKING:
    from consisid_runtime.bundle import Bundle


class Work:
    """The requests to one bundle.

    Attributes:
        faces: what was read of the latest photographs.
        rates: seconds that stages took.

    Args:
        processes: whether each stage is a process of its own; else all are loaded in this one.
    """

    def __init__(self, bundle: Bundle, faces: Faces, *, processes: bool = False) -> None:
        self._bundle, self._processes = bundle, processes
        self._host = HostPeak(None if processes else own_peak())
        self._preview = Preview(bundle.config.vae.scaling_factor)
        self.faces, self.rates = faces, Rates()

    def start(
        self,
        call: Call,
        values: Values,
        plan: Plan,
        *,
        extras: Extras = Extras(),  # noqa: B008  it is frozen
        checkpoint: bytes | None = None,
        whole: bool = False,
        look: Progress = silent,
    ) -> Generator[Event, None, dict[str, Info]]:
        """The flow of one request.

        Args:
            call: runs a stage.
            values: "prompt", and "image" or "identity", a handle; gets the outputs of each stage.
            checkpoint: to go on from.
            whole, look: as `Course` has them.

        Raises `CheckpointRefused`; its parts what the stages raise, and `IdentityExpired`.
        """
        step, save = 0, None
        if checkpoint is not None or extras.checkpoint_seconds:
            # The hardware's name costs a process that has no network the import of PyTorch.
            device = hardware(self._bundle.device)
            digest = request_digest(self.faces.digest(values), values, plan)
            origin = Origin(self._bundle.fingerprint, device, digest)
            if checkpoint is not None:
                step, state = read(checkpoint, origin, plan)
                values |= state
            save = partial(write, origin=origin) if extras.checkpoint_seconds else None
        course = Course(
            rates=self.rates,
            preview=partial(self._preview, call=call) if extras.previews else None,
            similarity=partial(similarity, call=call) if extras.similarity else None,
            checkpoint=save,
            checkpoint_seconds=extras.checkpoint_seconds,
            step=step,
            whole=whole,
            look=look,
        )
        return self._measured(flow(self.faces.kept(call), values, plan, course), plan)

    def estimate(self, plan: Plan) -> Estimate:
        """What a request should take that has its turn at once."""
        device = device_bytes(self._bundle, plan, processes=self._processes)
        return Estimate.of(self.rates.foreseen(plan), self._host.foreseen(plan), device)

    def _measured(
        self, parts: Generator[Event, None, dict[str, Info]], plan: Plan
    ) -> Generator[Event, None, dict[str, Info]]:
        reports = yield from parts
        self._host.learn(plan, None if self._processes else own_peak())
        return reports

    def identify(self, call: Call, image: bytes, plan: Plan, look: Progress = silent) -> Identity:
        """Read a face and keep it. Raises what the face stage raises."""
        # The face stage checks that there is a prompt, so that a bad request ends there.
        values: Values = {"image": image, "prompt": "a face"}
        _, info = self.faces.kept(call)(STAGES[0], values, plan, {}, look)
        return Identity(self.faces.name(image, plan), info)

    def trial(self, call: Call, look: Progress = silent) -> Generator[Event, None, dict[str, Info]]:
        """The flow of a tiny request of nobody, from which nothing is kept or learned. Raises what the stages raise."""
        plan = self._bundle.plan(trial_options(self._bundle))
        return flow(call, trial_values(), plan, Course(whole=True, look=look))
