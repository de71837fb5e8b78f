"""The licences of a checkpoint's weights, as documented where the official files come from.

They are known by file name only: weights of another origin under the same name may have another licence.
"""

from __future__ import annotations

from collections.abc import Iterable

_COGVIDEOX = {
    "licence": "CogVideoX LICENSE (restricts commercial use); ConsisID's own part Apache-2.0",
    "source": "https://github.com/PKU-YuanGroup/ConsisID#-license",
}
_T5 = {"licence": "Apache-2.0 (T5 v1.1 XXL)", "source": "https://huggingface.co/google/t5-v1_1-xxl"}
_INSIGHTFACE = {
    "licence": "non-commercial research only (InsightFace antelopev2)",
    "source": "https://github.com/deepinsight/insightface#license",
}
_MIT_CODE = {
    "licence": "MIT for the project it comes from; none stated for the weights",
    "source": "https://github.com/xinntao/facexlib#-functions",
}
_KNOWN = {
    "transformer/": _COGVIDEOX,
    "text_encoder/": _T5,
    "tokenizer/": _T5,
    "face_encoder/models/antelopev2/": _INSIGHTFACE,
    "face_encoder/detection_Resnet50_Final.pth": _MIT_CODE,
    "face_encoder/parsing_bisenet.pth": _MIT_CODE,
    "face_encoder/EVA02_CLIP_L_336_psz14_s6B.pt": {
        "licence": "MIT",
        "source": "https://huggingface.co/QuanSun/EVA-CLIP",
    },
}
_WEIGHTS = (".safetensors", ".pt", ".pth", ".onnx", ".model")


def licences(files: Iterable[str], own: str | None = None) -> dict[str, dict[str, str]]:
    """Weight file → "licence" and, where known, its "source".

    Args:
        files: paths inside the checkpoint; those that are no weights are left out.
        own: the licence that the checkpoint states for all of them.
    """
    weights = [file for file in sorted(files) if file.endswith(_WEIGHTS)]
    return {file: _licence(file) if own is None else {"licence": own} for file in weights}


def _licence(file: str) -> dict[str, str]:
    return next((entry for start, entry in _KNOWN.items() if file.startswith(start)), {"licence": "unknown"})
