"""The text stage: prompts in, the text encoder's states out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import sentencepiece
import torch
from torch import Tensor

from consisid_runtime.engines import Engine
from consisid_runtime.errors import EmptyPrompt
from consisid_runtime.plan import Plan

if TYPE_CHECKING:
    from consisid_runtime.bundle import Modules

KEPT_NEGATIVES = 8
"""Negative prompts whose states are kept: 3.7 MB each of ConsisID-preview's."""
_SENTINELS = 100
_CHARACTERS = 100
"""No token needs more: T5's longest piece has 16. SentencePiece takes 130 bytes for every character of a word."""
_SPECIAL = re.compile(r"</s>|<pad>|<unk>|<extra_id_(?:[0-9]|[1-9][0-9])>")
# What T5's normalisation leaves as space: less than Python's, control characters such as U+000B vanish inside a word.
_RUN = re.compile(r"[^\t\n\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")


@dataclass(frozen=True, slots=True)
class Text:
    """The prompts as the denoiser sees them.

    Attributes:
        states: float32 [B, L, D]; with guidance B is 2, the negative prompt first, else 1.
        info: "prompt_tokens", at most L, the end token included; "prompt_unknown_tokens", how many of them stand for
            text that the vocabulary lacks; "prompt_cut_at", only for a prompt that was too long: the index of the first
            character of the first word that is not read, or not whole. With guidance the same of the negative prompt,
            as "negative_prompt_tokens" and so on.
    """

    states: Tensor
    info: dict[str, int]


class Tokenizer:
    """T5's tokeniser over a SentencePiece model: words to pieces, the tokens' own names to tokens.

    Gives the ids of transformers' `T5Tokenizer`, with two known exceptions, where this keeps to SentencePiece: behind a
    character that normalisation replaces (full-width, superscript) transformers loses a combining mark; and of two
    divisions into pieces with equal scores each may choose another.
    """

    def __init__(self, model: str, length: int) -> None:
        self._pieces = sentencepiece.SentencePieceProcessor(model_file=model)
        self._length = length
        self._longest = _CHARACTERS * length
        self._pad: int = self._pieces.pad_id()
        self._end: int = self._pieces.eos_id()
        self._unknown: int = self._pieces.unk_id()
        self._silent = {self._pad, self._end, self._unknown, self._pieces.piece_to_id("▁")}
        last = self._pieces.vocab_size() + _SENTINELS - 1
        self._special = {"</s>": self._end, "<pad>": self._pad, "<unk>": self._unknown}
        self._special |= {f"<extra_id_{number}>": last - number for number in range(_SENTINELS)}

    def __call__(self, text: str) -> tuple[list[int], int | None]:
        """Ids of `text` with the end token, at most `length`, and the character where it was cut."""
        ids: list[int] = []
        cut = None
        # Pieces never cross words, so words beyond the limit need not be looked at.
        for start, end in _words(text):
            read = text[start : min(end, start + self._longest)]
            special = self._special.get(read)
            ids += self._pieces.encode(read) if special is None else [special]
            if len(ids) >= self._length or len(read) < end - start:
                cut = start
                break
        return [*ids[: self._length - 1], self._end], cut

    def unknown(self, ids: list[int]) -> int:
        """How many of `ids` stand for text that the vocabulary lacks."""
        return ids.count(self._unknown)

    def says_something(self, ids: list[int]) -> bool:
        """Whether `ids` has a token beside ends, padding and spaces; beside unknown ones it takes a letter."""
        told = set(ids) - self._silent
        if self._unknown not in ids:
            return bool(told)
        pieces = (self._pieces.id_to_piece(number) for number in told if number < self._pieces.vocab_size())
        return any(letter.isalpha() for piece in pieces for letter in piece)

    def pad(self, ids: list[int]) -> list[int]:
        """`ids` filled up to `length`."""
        return ids + [self._pad] * (self._length - len(ids))


def _words(text: str) -> Iterator[tuple[int, int]]:
    """Where words begin and end: what lies between spaces, and the tokens' own names inside of that.

    One expression for both would need possessive repeats, which Python 3.11.2 (Debian 12) matches wrongly.
    """
    for run in _RUN.finditer(text):
        start = run.start()
        for special in _SPECIAL.finditer(text, start, run.end()):
            if special.start() > start:
                yield start, special.start()
            yield special.span()
            start = special.end()
        if start < run.end():
            yield start, run.end()


class TextReader:
    """Reads a prompt, and with guidance the negative prompt, each in a call of its own.

    The states of the last negative prompts are kept, by all that they depend on in one bundle: their token ids. Rows of
    a matrix product may round otherwise in another batch: alone, a prompt's bits are the same, kept or not.

    Args:
        bundle: holds the text_encoder module and `tokenizer/spiece.model`.
    """

    def __init__(self, bundle: Modules) -> None:
        self._states = partial(_states, bundle.module("text_encoder"))
        self._kept = lru_cache(KEPT_NEGATIVES)(self._states)
        length = bundle.config.transformer.max_text_seq_length
        self._tokenizer = Tokenizer(str(bundle.file("tokenizer/spiece.model")), length)

    def __call__(self, prompt: str, plan: Plan) -> Text:
        """Read a prompt; with guidance also the plan's negative prompt.

        Raises `EmptyPrompt` where the vocabulary knows nothing of a prompt. The empty one, which `check_prompt` refuses
        in requests, is read: evaluations compare with it.
        """
        prompts = {"negative_prompt": plan.options.negative_prompt} if plan.guided else {}
        prompts["prompt"] = prompt
        info: dict[str, int] = {}
        rows: dict[str, tuple[int, ...]] = {}
        for name, text in prompts.items():
            ids, cut = self._tokenizer(text)
            info[f"{name}_tokens"] = len(ids)
            info[f"{name}_unknown_tokens"] = unknown = self._tokenizer.unknown(ids)
            if not self._tokenizer.says_something(ids) and (unknown or (name == "prompt" and text)):
                raise EmptyPrompt(
                    f"the checkpoint's vocabulary knows nothing of the {name.replace('_', ' ')}; describe it in other "
                    "words or another language, English for ConsisID"
                )
            if cut is not None:
                info[f"{name}_cut_at"] = cut
            rows[name] = tuple(self._tokenizer.pad(ids))
        negative = [self._kept(rows["negative_prompt"])] if plan.guided else []
        return Text(torch.cat([*negative, self._states(rows["prompt"])]), info)


def _states(encoder: Engine, ids: tuple[int, ...]) -> Tensor:
    """float32 [1, L, D] of one prompt's L ids."""
    return encoder({"token_ids": torch.tensor([ids])})["text_states"]
