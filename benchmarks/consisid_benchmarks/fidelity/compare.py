"""Another bundle of the same checkpoint through the gate: is it as good as `exact`?"""

from __future__ import annotations

from consisid_benchmarks.fidelity import distance
from consisid_benchmarks.fidelity.gate import LIMITS, run
from consisid_benchmarks.fidelity.judges import Judges
from consisid_benchmarks.fidelity.nano_run import Progress, Workbench
from consisid_benchmarks.fidelity.nano_variants import EXACT
from consisid_benchmarks.fidelity.nano_worker import kept
from consisid_benchmarks.fidelity.verdict import Criterion, Distances, Verdict, judge
from consisid_runtime.errors import NotFinite


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
