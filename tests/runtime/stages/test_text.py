"""The text stage's token ids against transformers' T5Tokenizer, and what it makes of prompts nobody should send."""

import random
import time
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from consisid_nano.untrained.tokenizer import write_tokenizer
from consisid_runtime.errors import EmptyPrompt
from consisid_runtime.options import Options, check_prompt
from consisid_runtime.plan import Geometry, Plan, plan
from consisid_runtime.stages.text import KEPT_NEGATIVES, TextReader, Tokenizer

LENGTH = 24
LONG = "a woman walks along the beach " * 2000
PROMPTS = [
    "A woman with long brown hair smiles at the camera.",
    "  leading, trailing and  double   spaces  ",
    "lines\n\nand\ttabs\r\nof all \x0b\x0c kinds\x1c\x85here",
    "naïve café, e\u0301 combined, ﬁne ligature, ½ and ™ …",
    "日本語のプロンプト、한국어 и по-русски",
    "emoji 😀 and 👩‍👩‍👧 in\u200bvisible\u00a0spaces\u3000\ufeff\u00ad",
    "１２３ ＡＢＣ ﷺ ▁marked▁up▁",
    "an </s> end, a<pad>pad <unk> and <extra_id_0><extra_id_99> <extra_id_100> <extra_id_٣> </S>",
    "",
    "\x00\x7f\u202e",
    "x" * 3000,
    LONG,
    *(" ".join(LONG.split()[:words]) for words in range(10, 16)),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def reference(model: Path) -> Any:
    import transformers

    return transformers.T5Tokenizer.from_pretrained(model)


class FakeBundle:
    def __init__(self, folder: Path) -> None:
        self.calls: list[torch.Tensor] = []
        self._folder = folder
        self.config = SimpleNamespace(transformer=SimpleNamespace(max_text_seq_length=LENGTH))

    def file(self, name: str) -> Path:
        return self._folder / Path(name).relative_to("tokenizer")

    def module(self, name: str) -> Any:
        assert name == "text_encoder"

        def encode(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            self.calls.append(inputs["token_ids"])
            return {"text_states": inputs["token_ids"][..., None].float()}

        return encode


def a_plan(**options: Any) -> Plan:
    return plan(Options(**options), Geometry(9, 32, 32, 8, 4, 2, fixed_size=False))


def test_layout_is_loaded_by_transformers(reference: Any, model: Path) -> None:
    names = {"spiece.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"}
    assert {path.name for path in model.iterdir()} == names
    assert reference.convert_tokens_to_ids(["<pad>", "</s>", "<unk>"]) == [0, 1, 2]
    assert reference.convert_tokens_to_ids(["<extra_id_0>", "<extra_id_99>"]) == [
        len(reference) - 1,
        len(reference) - 100,
    ]


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: ascii(prompt[:20]))
def test_ids(prompt: str, reference: Any, model: Path) -> None:
    wanted = reference(prompt, padding="max_length", max_length=LENGTH, truncation=True).input_ids
    tokenizer = Tokenizer(str(model / "spiece.model"), LENGTH)
    ids, cut = tokenizer(prompt)
    assert tokenizer.pad(ids) == wanted
    assert (cut is not None) == (len(reference(prompt).input_ids) > LENGTH)


def test_ids_of_random_text(reference: Any, model: Path) -> None:
    draw = random.Random(0)
    tokenizer = Tokenizer(str(model / "spiece.model"), 1000)
    # no combining marks: transformers loses them behind characters that normalisation replaces
    ranges = [(32, 127)] * 6 + [(0, 0x250), (0x2000, 0x20D0), (0x3040, 0x3100), (0xAC00, 0xAD00), (0xFF00, 0xFFF0)]
    for _ in range(1000):
        text = "".join(chr(draw.randrange(*draw.choice(ranges))) for _ in range(draw.randrange(30)))
        assert tokenizer(text) == (reference(text).input_ids, None), ascii(text)


def test_with_guidance_the_negative_prompt_comes_first(model: Path) -> None:
    bundle = FakeBundle(model)
    text = TextReader(bundle)("a man walks", a_plan(negative_prompt="blurry"))  # type: ignore[arg-type]
    tokenizer = Tokenizer(str(model / "spiece.model"), LENGTH)
    rows = [tokenizer.pad(tokenizer(prompt)[0]) for prompt in ("blurry", "a man walks")]
    assert [call.tolist() for call in bundle.calls] == [[row] for row in rows]
    assert {call.dtype for call in bundle.calls} == {torch.int64}
    assert text.states[..., 0].tolist() == rows
    counts = {"negative_prompt": len(tokenizer("blurry")[0]), "prompt": len(tokenizer("a man walks")[0])}
    expected = {f"{name}_tokens": count for name, count in counts.items()}
    assert text.info == expected | {"negative_prompt_unknown_tokens": 0, "prompt_unknown_tokens": 0}


def test_a_negative_prompt_is_read_once(model: Path) -> None:
    bundle = FakeBundle(model)
    reader = TextReader(bundle)  # type: ignore[arg-type]
    first = reader("a man walks", a_plan(negative_prompt="blurry"))
    kept = first.states.clone()
    first.states.zero_()  # what was returned is the caller's
    other = reader("a dog", a_plan(negative_prompt="blurry"))
    again = reader("a man walks", a_plan(negative_prompt="blurry"))
    assert torch.equal(again.states, kept) and again.info == first.info
    assert torch.equal(other.states[0], kept[0]) and not torch.equal(other.states[1], kept[1])
    sharp = reader("a man walks", a_plan(negative_prompt="sharp")).states
    assert not torch.equal(sharp[0], kept[0]) and torch.equal(sharp[1], kept[1])
    tokenizer = Tokenizer(str(model / "spiece.model"), LENGTH)
    read = ("blurry", "a man walks", "a dog", "a man walks", "sharp", "a man walks")
    assert [call[0].tolist() for call in bundle.calls] == [tokenizer.pad(tokenizer(prompt)[0]) for prompt in read]


def test_the_states_of_few_negative_prompts_are_kept(model: Path) -> None:
    bundle = FakeBundle(model)
    reader = TextReader(bundle)  # type: ignore[arg-type]

    def calls(number: int) -> int:
        before = len(bundle.calls)
        reader("a man", a_plan(negative_prompt="a " * number))
        return len(bundle.calls) - before

    numbers = range(1, KEPT_NEGATIVES + 1)
    assert [calls(number) for number in numbers] == [2] * KEPT_NEGATIVES
    assert [calls(number) for number in numbers] == [1] * KEPT_NEGATIVES
    assert calls(KEPT_NEGATIVES + 1) == 2
    assert calls(1) == 2


def test_readers_of_two_bundles_share_nothing(model: Path) -> None:
    first, second = FakeBundle(model), FakeBundle(model)
    for bundle in (first, second):
        TextReader(bundle)("a man", a_plan())  # type: ignore[arg-type]
    assert len(first.calls) == len(second.calls) == 2


def test_without_guidance_the_negative_prompt_is_not_read(model: Path) -> None:
    bundle = FakeBundle(model)
    text = TextReader(bundle)("a man", a_plan(guidance=1.0, negative_prompt=LONG))  # type: ignore[arg-type]
    assert [call.shape for call in bundle.calls] == [(1, LENGTH)]
    assert set(text.info) == {"prompt_tokens", "prompt_unknown_tokens"}


def test_cut_is_reported_where_a_word_begins(model: Path) -> None:
    info = TextReader(FakeBundle(model))(LONG, a_plan(negative_prompt=LONG)).info  # type: ignore[arg-type]
    assert info["prompt_tokens"] == info["negative_prompt_tokens"] == LENGTH
    cut = info["prompt_cut_at"]
    assert cut == info["negative_prompt_cut_at"] and LONG[cut - 1] == " " != LONG[cut]
    tokenizer = Tokenizer(str(model / "spiece.model"), LENGTH)
    assert tokenizer(LONG[:cut])[1] is None
    assert tokenizer(LONG[: LONG.index(" ", cut)])[1] == cut


def test_of_an_endless_word_only_the_beginning_is_tokenised(model: Path) -> None:
    tokenizer = Tokenizer(str(model / "spiece.model"), LENGTH)
    seen: list[int] = []

    class Pieces:
        def __init__(self, pieces: Any) -> None:
            self._pieces = pieces

        def encode(self, word: str) -> Any:
            seen.append(len(word))
            return self._pieces.encode(word)

    expected = tokenizer("a " + "x" * 500)
    tokenizer._pieces = Pieces(tokenizer._pieces)  # type: ignore[assignment]
    endless = "a " + "x" * 10**7
    tracemalloc.start()
    assert tokenizer(endless) == expected and expected[1] == 2
    assert tracemalloc.get_traced_memory()[1] < 4 * len(endless)
    tracemalloc.stop()
    assert max(seen) == 100 * LENGTH
    assert tokenizer("a " + "\u200b" * 10**5 + " b")[1] == 2


UNKNOWN = [
    "一个女人走在沙滩上",
    "امرأة تمشي",
    "😀",
    "👩‍👩‍👧 😀😀",
    "日本語 のプロンプト",
    "<unk>",
    "</s>",
    "<pad> </s>",
    "走在，沙滩上3！",
]


@pytest.mark.parametrize("prompt", UNKNOWN, ids=ascii)
def test_a_prompt_of_which_the_vocabulary_knows_nothing_is_refused(prompt: str, model: Path) -> None:
    bundle = FakeBundle(model)
    reader = TextReader(bundle)  # type: ignore[arg-type]
    with pytest.raises(EmptyPrompt, match="knows nothing of the prompt"):
        reader(prompt, a_plan())
    if "unk" in prompt or prompt[0] not in "<":
        with pytest.raises(EmptyPrompt, match="knows nothing of the negative prompt"):
            reader("a man", a_plan(negative_prompt=prompt))
    assert not bundle.calls


@pytest.mark.parametrize("negative", ["", "  ", "\n"])
def test_a_negative_prompt_may_be_empty(negative: str, model: Path) -> None:
    info = TextReader(FakeBundle(model))("a man", a_plan(negative_prompt=negative)).info  # type: ignore[arg-type]
    assert info["negative_prompt_unknown_tokens"] == 0 and info["negative_prompt_tokens"] < info["prompt_tokens"]


@pytest.mark.parametrize(
    ("prompt", "unknown"), [("a man walks", 0), ("a man 走 walks 😀", 2), ("a 日本語 man", 1), ("a <unk> man", 1)]
)
def test_unknown_tokens_are_counted(prompt: str, unknown: int, reference: Any, model: Path) -> None:
    assert reference(prompt).input_ids.count(reference.unk_token_id) == unknown
    info = TextReader(FakeBundle(model))(prompt, a_plan(negative_prompt=prompt)).info  # type: ignore[arg-type]
    assert info["prompt_unknown_tokens"] == info["negative_prompt_unknown_tokens"] == unknown


@pytest.mark.parametrize(
    "prompt", ["a " * 2**15, "x" * 2**16, "a " + "\u200b " * 2**13, "日" * 21845, "a" + "\u0301" * 2**14]
)
def test_the_longest_prompt_is_read_in_linear_time(prompt: str, model: Path) -> None:
    tokenizer = Tokenizer(str(model / "spiece.model"), 226)
    begin = time.process_time()
    tokenizer(check_prompt(prompt))
    assert time.process_time() - begin < 0.25
