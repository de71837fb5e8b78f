"""Checks a checkpoint's tokenizer: the vocabulary, and that its settings are those that the text stage implements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import sentencepiece

from consisid_export.checkpoint.contents import one_line, read_json, require_content
from consisid_export.checkpoint.layout import TOKENIZER
from consisid_runtime.errors import CheckpointInvalid
from consisid_runtime.models.configs.entries import Entries

SETTINGS = ("tokenizer/tokenizer_config.json", "tokenizer/special_tokens_map.json", "tokenizer/added_tokens.json")
"""Optional: transformers' defaults are T5's."""

_SENTINELS = 100
_NAMES = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
_LENGTHS = ("max_length", "model_max_length", "padding", "truncation")
"""The pipeline gives length, padding and truncation itself."""
_OF_OTHER_CLASSES = ("add_prefix_space", "clean_up_tokenization_spaces", "legacy", "extra_special_tokens")
"""Taken by other tokenizers or older versions of T5's; transformers' T5Tokenizer encodes the same with either value."""
_OF_THE_FILE = ("added_tokens_decoder", "backend", "is_local", "name_or_path", "tokenizer_file", "vocab_file")
_NAMED = ("T5Tokenizer", "T5TokenizerFast", None)


def vocabulary(folder: Path) -> int:
    """The number of token ids, sentinels included. Raises `CheckpointInvalid`."""
    path = folder / TOKENIZER
    require_content(path)
    try:
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
        first = [pieces.id_to_piece(index) for index in range(min(len(_NAMES), pieces.vocab_size()))]
    except (OSError, RuntimeError, IndexError) as error:
        raise CheckpointInvalid(f"is no SentencePiece model ({one_line(error)})") from error
    if first != [*_NAMES.values()] or (pieces.pad_id(), pieces.eos_id(), pieces.unk_id()) != (0, 1, 2):
        raise CheckpointInvalid(f"begins with the pieces {first}, wanted {[*_NAMES.values()]} as T5's special ones")
    return int(pieces.vocab_size()) + _SENTINELS


def settings_problems(folder: Path, size: int | None) -> Iterator[tuple[str, str]]:
    """(file, problem) of the files of `SETTINGS` that are there.

    Args:
        size: of the vocabulary; None where it is not known.
    """
    for file in SETTINGS:
        if not (folder / file).exists():
            continue
        try:
            content = read_json(folder / file)
            if file.endswith("added_tokens.json"):
                _require_own_tokens(file, content, size)
            else:
                _require_settings(file, content, size)
        except CheckpointInvalid as error:
            yield file, str(error).removeprefix(f"{file}: ")


def _require_settings(file: str, content: Mapping[str, Any], size: int | None) -> None:
    plain = {name: _text(value) for name, value in content.items()}
    at = Entries(file, plain)
    at.unread(*_LENGTHS, *_OF_OTHER_CLASSES, *_OF_THE_FILE)
    at.choice("tokenizer_class", None, _NAMED)
    at.choice("extra_ids", _SENTINELS, (_SENTINELS,))
    at.choice("sp_model_kwargs", {}, ({}, None))
    for name, piece in _NAMES.items():
        at.choice(name, piece, (piece,))
    sentinels = {f"<extra_id_{number}>" for number in range(_SENTINELS)}
    more = plain.get("additional_special_tokens")
    others = [_text(token) for token in more] if isinstance(more, list) else more
    fits = others is None or (isinstance(others, list) and all(isinstance(t, str) and t in sentinels for t in others))
    at.unread("additional_special_tokens")
    at.require("additional_special_tokens", more, fits, "none but <extra_id_0> … <extra_id_99>")
    at.done()
    decoder = content.get("added_tokens_decoder", {})
    if not isinstance(decoder, dict):
        raise CheckpointInvalid("added_tokens_decoder must be a JSON object")
    _require_own_tokens("added_tokens_decoder", {str(_text(t)): _index(i) for i, t in decoder.items()}, size)


def _require_own_tokens(where: str, found: Mapping[str, object], size: int | None) -> None:
    """Raises `CheckpointInvalid` for a token with a name or an id that T5 does not have."""
    if size is None:
        return
    own = {piece: index for index, piece in enumerate(_NAMES.values())}
    own |= {f"<extra_id_{number}>": size - 1 - number for number in range(_SENTINELS)}
    for token, index in found.items():
        if token not in own or index != own[token]:
            wanted = f"{own[token]}" if token in own else "no such token"
            raise CheckpointInvalid(f"{where}: {token[:100]!r} has the id {index!r:.100}, wanted {wanted}")


def _text(value: object) -> object:
    """A token, which may be written as an object with its text as "content"."""
    return value["content"] if isinstance(value, dict) and "content" in value else value


def _index(text: str) -> object:
    return int(text) if text.isdecimal() and len(text) < 10 else text
