"""Another bundle of the same checkpoint through the gate: is it as good as `exact`?"""

from __future__ import annotations

from consisid_fidelity.judges.judges import Judges
from consisid_fidelity.metrics import distance
from consisid_fidelity.nano.gate import LIMITS, run
from consisid_fidelity.nano.run import Workbench
from consisid_fidelity.nano.variants import EXACT
from consisid_fidelity.nano.worker import kept
from consisid_fidelity.verdict import Criterion, Distances, Verdict, judge
from consisid_runtime.errors import NotFinite
from consisid_runtime.events import Progress


def compare(
    candidate: Workbench, reference: Workbench, count: int, processes: int, progress: Progress | None = None
) -> Verdict:
    """The verdict on a candidate's videos beside the reference's, on the first `count` cases.

    A candidate whose networks give infinities or NaN fails by the criterion "finite" alone.

    Args:
        candidate, reference: with the same judges; their bundles, or options such as steps, differ.
        processes, progress: as `Workbench.run` has them.

    Raises what making and judging raises, and `ValueError` for videos of other sizes.
    """
    wanted_rows = reference.run({EXACT: count}, processes, progress)
    try:
        found_rows = candidate.run({EXACT: count}, processes, progress)
    except NotFinite as error:
        return Verdict((Criterion("finite", None, 0.0, str(error), True, False),))
    clip = Judges.open(reference.subject.judges, "cpu").clip
    latents, psnr, features = [], [], []
    for number in range(count):
        found, wanted = (kept(bench.folder, EXACT, number) for bench in (candidate, reference))
        latents.append(distance.relative_distance(found.latents, wanted.latents))
        psnr.append(distance.psnr(found.frames, wanted.frames))
        features.append(clip.feature_distance(found.frames, wanted.frames))
    found_run, wanted_run = (run(each, EXACT, count) for each in (found_rows, wanted_rows))
    return judge(found_run, wanted_run, Distances(latents, psnr, features), LIMITS)
