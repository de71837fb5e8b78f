"""What options are called elsewhere: finds the option that a user meant by another name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection

_ELSEWHERE = {
    "guidance_scale": "guidance",
    "cfg": "guidance",
    "cfg_scale": "guidance",
    "num_inference_steps": "steps",
    "inference_steps": "steps",
    "num_steps": "steps",
    "sampling_steps": "steps",
    "num_frames": "frames",
    "video_length": "frames",
    "use_dynamic_cfg": "dynamic_guidance",
    "negative_prompt_embeds": "negative_prompt",
    "generator": "seed",
    "manual_seed": "seed",
    "frame_rate": "fps",
    "sampler": "scheduler",
    "kps_cond": "keypoints",
    "max_num_faces": "face_index",
}
"""Names of diffusers' `ConsisIDPipeline` and of other programs → the option."""
_LONGEST = 64
"""Characters of a name that is compared with others: the comparison takes quadratic time."""


def meant(name: str, known: Collection[str]) -> str | None:
    """The option in `known` that a user meant by `name`: spelled otherwise or wrongly, or another program's."""
    if len(name) > _LONGEST:
        return None
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip().lstrip("-")).lower().replace("-", "_")
    candidates = {option: option for option in known} | {k: v for k, v in _ELSEWHERE.items() if v in known}
    nearest = [plain] if plain in candidates else difflib.get_close_matches(plain, candidates, n=1, cutoff=0.6)
    return candidates[nearest[0]] if nearest else None
