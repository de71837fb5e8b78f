"""Trains the judge of prompt following: a small CLIP of transformers' classes, on frames and prompts."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from consisid_nano.world import prompt
from consisid_nano.world.scene import CLOTHES, EXPRESSIONS, GARMENTS, MOTIONS, PLACES, SPEECH, SUBJECTS
from consisid_training.data.clips import load, scene_of
from consisid_training.faces.recogniser import augment
from consisid_training.loop.device import autocast
from consisid_training.loop.resumable import TrainingRun, weights

EDGE, PATCH, WIDTH, LENGTH = 64, 8, 96, 32
SEED = 41
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")
MEAN = STD = (0.5, 0.5, 0.5)


def words() -> list[str]:
    """Return every word of the prompts' grammar, in a fixed order."""
    phrases = [*CLOTHES, *GARMENTS, *SUBJECTS, "a wears in and"]
    phrases += [phrase for table in (PLACES, EXPRESSIONS, MOTIONS, SPEECH) for row in table.values() for phrase in row]
    return sorted({word for phrase in phrases for word in phrase.split()})


def build() -> Any:
    from transformers import CLIPConfig, CLIPModel

    side = {"hidden_size": WIDTH, "intermediate_size": 3 * WIDTH, "num_attention_heads": 3, "projection_dim": 64}
    vocabulary = len(SPECIAL) + len(words())
    return CLIPModel(
        CLIPConfig(
            text_config={
                **side, "num_hidden_layers": 2, "vocab_size": vocabulary, "max_position_embeddings": LENGTH,
                "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3,
            },
            vision_config={**side, "num_hidden_layers": 4, "image_size": EDGE, "patch_size": PATCH},
            projection_dim=64,
        )
    )  # fmt: skip


def tokenizer() -> Any:
    """Return a tokenizer of lower-cased words without punctuation."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    numbers = {word: i for i, word in enumerate((*SPECIAL, *words()))}
    made = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    made.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(Regex("[.,!?]"), " ")])
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)])
    wrap: Any = PreTrainedTokenizerFast
    return wrap(
        tokenizer_object=made, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        model_max_length=LENGTH,
    )  # fmt: skip


def train(data: Path, folder: Path, steps: int, batch: int = 64) -> None:
    torch.manual_seed(SEED)
    network = build()
    run = TrainingRun(
        folder, network, steps=steps, rate=2e-3, adamw_rate=1e-3, seed=SEED, average=0.99,
        adamw=("embedding", "projection"),
    )  # fmt: skip
    clips, tokens = load(data, "clips"), tokenizer()
    for step in run.loop():
        rng = run.rng(step)
        rows = rng.integers(len(clips), size=batch)
        # A frame shows neither motion nor speech; for these, all texts of a batch are equally likely.
        frames = np.stack([clips[row, int(rng.integers(clips.shape[1]))] for row in rows])
        texts = [prompt(scene_of(int(row)), int(rng.integers(2**31))) for row in rows]
        encoded = tokens(texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
        with autocast("cpu"):
            found = network(**encoded, pixel_values=pixels(augment(frames, rng)))
        logits = found.logits_per_image.float()
        own = torch.arange(batch)
        loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        run.update(loss, hits=(logits.argmax(1) == own).float().mean().item())


def pixels(frames: Any) -> Tensor:
    """Crop the middle square of uint8 [N, 64, 96, 3]: float32 [N, 3, 64, 64] in −1…1."""
    left = (frames.shape[2] - EDGE) // 2
    square = np.ascontiguousarray(frames[:, :, left : left + EDGE])
    return torch.from_numpy(square).permute(0, 3, 1, 2).float() / 127.5 - 1


def write(run: Path, folder: Path) -> None:
    """Write the network trained in `run` as a Hugging Face folder, in half precision."""
    network = build()
    network.load_state_dict(weights(run))
    network.half().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    preprocessing = {
        "crop_size": {"height": EDGE, "width": EDGE}, "do_center_crop": True, "do_convert_rgb": True,
        "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": MEAN, "image_std": STD,
        "image_processor_type": "CLIPImageProcessor", "resample": 3, "rescale_factor": 1 / 255,
        "size": {"shortest_edge": EDGE},
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=1200)
    arguments = parser.parse_args()
    train(arguments.data, arguments.folder, arguments.steps)
