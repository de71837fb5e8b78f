"""Fixtures: a judge folder of tiny networks, and videos of drawn people."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consisid_export.onnx.sample_portrait import drawn_portrait
from consisid_nano.untrained.detector import write_detector
from consisid_nano.untrained.graph import Graph
from consisid_nano.untrained.recogniser import write_recogniser
from consisid_runtime.mp4 import Frames

WORDS = ["<start>", "<end>", "<unk>", "a", "person", "smiles", "in", "red", "blue"]
EDGE = 16


def write_clip(folder: Path) -> None:
    """Write a CLIPModel with random weights, a tokenizer of a few words, and an input size of 32 × 32."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    small: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    small |= {"num_attention_heads": 2, "projection_dim": 8}
    text = small | {"vocab_size": len(WORDS), "max_position_embeddings": 6, "bos_token_id": 0, "eos_token_id": 1}
    config = CLIPConfig(text_config=text, vision_config=small | {"image_size": 32, "patch_size": 8}, projection_dim=8)
    model = CLIPModel(config)
    with torch.no_grad():
        for parameter in model.parameters():  # with the default of 0.02, all pictures and prompts get similar features
            if parameter.ndim > 1:
                parameter.normal_(std=0.5)
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", 1)]
    )
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", unk_token="<unk>").save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_mean=[0.4] * 3, image_std=[0.2] * 3
    ).save_pretrained(folder)


def write_inception(path: Path) -> None:
    """Write a network whose features are each channel's mean over the picture [N, 3]."""
    graph = Graph()
    graph.add("Flatten", graph.add("GlobalAveragePool", "image"), axis=1, output="features")
    graph.save(path, {"image": ["n", 3, EDGE, EDGE]}, {"features": ["n", 3]})


def write_attributes(folder: Path, frames: int = 4, size: int = 96) -> None:
    """Write a network: `colour` is the brightest channel, `end` whether the last frame is darker than the first."""
    graph = Graph()
    means = graph.add("ReduceMean", "clip", axes=[1, 3, 4], keepdims=0)
    graph.add("Identity", means, output="colour")
    light = graph.add("ReduceMean", "clip", axes=[2, 3, 4], keepdims=0)
    weights = np.zeros((frames, 2), np.float32)
    weights[0], weights[-1] = (1, -1), (-1, 1)
    graph.add("MatMul", light, graph.constant(weights), output="end")
    graph.save(
        folder / "attributes.onnx", {"clip": ["n", frames, 3, size, size]}, {"colour": ["n", 3], "end": ["n", 2]}
    )
    classes = {"colour": ["red", "green", "blue"], "end": ["dark", "bright"]}
    (folder / "attributes.json").write_text(json.dumps(classes))


@pytest.fixture(scope="session")
def judge_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every judge, untrained."""
    folder = tmp_path_factory.mktemp("judges")
    write_detector(folder / "detector.onnx")
    write_recogniser(folder / "arcface.onnx", seed=1)
    write_recogniser(folder / "curricular.onnx", seed=2)
    write_clip(folder / "clip")
    write_inception(folder / "inception.onnx")
    write_attributes(folder)
    return folder


@pytest.fixture(scope="session")
def portrait_pixels() -> Frames:
    """A drawn person [192, 192, 3] that the hand-built detector finds."""
    return drawn_portrait(3, 192, face=0.6, centre=(0.5, 0.5))


@pytest.fixture(scope="session")
def person_video() -> Frames:
    """The same person moving to the right, [4, 96, 96, 3]; the last frame shows nobody."""
    shown = [drawn_portrait(3, 96, face=0.6, centre=(0.45 + 0.03 * step, 0.5)) for step in range(3)]
    return np.stack([*shown, np.full((96, 96, 3), 90, np.uint8)])
