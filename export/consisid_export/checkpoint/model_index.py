"""Checks `model_index.json`, which names the classes that the reference loads a checkpoint with."""

from __future__ import annotations

from pathlib import Path

from consisid_export.checkpoint.contents import read_json
from consisid_export.checkpoint.layout import MODEL_INDEX
from consisid_runtime.models.configs.entries import Entries
from consisid_runtime.models.configs.scheduler import CLASSES as SCHEDULERS

_CLASSES = {
    "scheduler": SCHEDULERS,
    "text_encoder": ("T5EncoderModel",),
    "tokenizer": ("T5Tokenizer", "T5TokenizerFast"),
    "transformer": ("ConsisIDTransformer3DModel",),
    "vae": ("AutoencoderKLCogVideoX",),
}


def require_consisid(path: Path) -> None:
    """Raises `CheckpointInvalid` naming every component whose class is another than this project implements."""
    content = read_json(path)
    # The library that a class comes from makes no difference to what it is.
    classes = {
        name: value[1] if name in _CLASSES and isinstance(value, list) and len(value) == 2 else value
        for name, value in content.items()
    }
    at = Entries(MODEL_INDEX, classes)
    at.choice("_class_name", "ConsisIDPipeline", ("ConsisIDPipeline",))
    for name, choices in _CLASSES.items():
        at.choice(name, choices[0], choices)
    at.done()
