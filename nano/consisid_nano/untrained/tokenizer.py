"""Trains a small T5 tokenizer and writes it in the official folder's layout."""

from __future__ import annotations

import io
import json
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sentencepiece

EXTRA_IDS = 100
_PIECES = 384
_END, _PAD, _UNKNOWN = "</s>", "<pad>", "<unk>"

TEXT = """
A woman with long brown hair smiles at the camera while soft light falls through the window.
A young man in a blue shirt walks slowly along the street, and the city behind him is out of focus.
The video shows an old man with a grey beard who is talking to a friend in a small kitchen.
She turns her head to the left, laughs, and looks back at the viewer with bright green eyes.
A close-up portrait of a girl wearing round glasses and a red scarf; snow is falling around her.
He stands still on the beach at sunset, the wind moving his short black hair and his white jacket.
Her expression is calm and thoughtful, her face clearly visible against a dark yellow background.
A boy with freckles nods, surprised and happy, then waves to people passing by in the park.
Slow motion, gentle shadows, detailed skin, natural colours, and a steady camera that moves closer.
An angry singer in a purple dress raises one hand under warm stage lights before a quiet crowd.
""".strip().splitlines()


def write_tokenizer(folder: Path, sentences: Iterable[str] = TEXT, pieces: int = _PIECES) -> int:
    """Write spiece.model and its three JSON files into `folder`, deterministically.

    Args:
        sentences: training text. pieces: upper limit of the vocabulary without sentinel tokens.

    Returns:
        The vocabulary's size with sentinel tokens: the least number of rows of a text encoder's embedding.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        model_type="unigram",
        vocab_size=pieces,
        hard_vocab_limit=False,
        character_coverage=1.0,
        required_chars=string.ascii_letters + string.digits + string.punctuation,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    found = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).vocab_size()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(model.getvalue())
    for name, content in _settings(found).items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return found + EXTRA_IDS


def _settings(pieces: int) -> dict[str, dict[str, Any]]:
    sentinels = [f"<extra_id_{number}>" for number in range(EXTRA_IDS)]
    # T5 numbers its sentinel tokens downwards, after the trained pieces.
    added = {sentinel: pieces + EXTRA_IDS - 1 - number for number, sentinel in enumerate(sentinels)}
    special = {_PAD: 0, _END: 1, _UNKNOWN: 2} | added
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    names = {"eos_token": _END, "pad_token": _PAD, "unk_token": _UNKNOWN}
    return {
        "added_tokens.json": added,
        "special_tokens_map.json": {"additional_special_tokens": sentinels} | names,
        "tokenizer_config.json": {
            "added_tokens_decoder": {
                str(index): {"content": token} | flags
                for token, index in sorted(special.items(), key=lambda item: item[1])
            },
            "additional_special_tokens": sentinels,
            "extra_ids": EXTRA_IDS,
            "sp_model_kwargs": {},
            "tokenizer_class": "T5Tokenizer",
        }
        | names,
    }
