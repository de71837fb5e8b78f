"""Every entry of every configuration file, damaged in every way: it opens and means what the reference means, or a
typed error names it."""

import inspect
import json
from collections.abc import Iterator
from typing import Any

import diffusers
import pytest
import transformers
from huggingface_hub.errors import StrictDataclassFieldValidationError

from consisid_nano.untrained import configs
from consisid_runtime.errors import CheckpointInvalid
from consisid_runtime.models.configs.checkpoint import FILES, CheckpointConfig
from consisid_runtime.models.configs.dit import DiTConfig, LocalExtractorConfig
from consisid_runtime.models.configs.scheduler import SchedulerConfig
from consisid_runtime.models.configs.t5 import T5Config
from consisid_runtime.models.configs.vae import VAEConfig

CONFIGS: dict[str, dict[str, Any]] = {
    "transformer": configs.TRANSFORMER,
    "vae": configs.VAE,
    "text_encoder": configs.TEXT_ENCODER | {"vocab_size": 500},
    "scheduler": configs.SCHEDULER,
}
REMOVED = object()
DAMAGE: dict[str, Any] = {
    "removed": REMOVED,
    "null": None,
    "text": "3",
    "empty": "",
    "negative": -1,
    "zero": 0,
    "huge": 10**15,
    "fraction": 2.5,
    "nan": float("nan"),
    "infinite": float("inf"),
    "true": True,
    "false": False,
    "list": [1, "a"],
    "nested": {"a": [[[]]]},
}
OWN_NAMES = {
    "vae": {
        "channels": "block_out_channels",
        "layers": "layers_per_block",
        "groups": "norm_num_groups",
        "eps": "norm_eps",
        "temporal": "temporal_compression_ratio",
        "quant": "use_quant_conv",
        "post_quant": "use_post_quant_conv",
    },
    "text_encoder": {
        "vocabulary": "vocab_size",
        "width": "d_model",
        "heads": "num_heads",
        "head_width": "d_kv",
        "hidden": "d_ff",
        "layers": "num_layers",
        "buckets": "relative_attention_num_buckets",
        "distance": "relative_attention_max_distance",
        "eps": "layer_norm_epsilon",
        "gated": "is_gated_act",
    },
}
CLASSES = {
    "transformer": diffusers.ConsisIDTransformer3DModel,
    "vae": diffusers.AutoencoderKLCogVideoX,
    "scheduler": diffusers.CogVideoXDPMScheduler,
}


def meaning(component: str, content: dict[str, Any]) -> dict[str, Any]:
    """What the reference reads in a file: its defaults, and what is written."""
    if component == "text_encoder":
        return dict(transformers.T5Config(**content).to_dict())
    parameters = inspect.signature(CLASSES[component].__init__).parameters
    return {name: parameter.default for name, parameter in parameters.items()} | content


UNREAD = {"eos_token_id", "is_encoder_decoder", "pad_token_id"}
"""Entries of `configs.TEXT_ENCODER` whose type transformers checks, and which change nothing here."""


def ours(component: str, content: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """(the reference's name of an entry, what we read)."""
    parsed: list[tuple[Any, str]] = {
        "transformer": lambda: [(DiTConfig.from_dict(content), ""), (LocalExtractorConfig.from_dict(content), "LFE_")],
        "vae": lambda: [(VAEConfig.from_dict(content), "")],
        "text_encoder": lambda: [(T5Config.from_dict(content), "")],
        "scheduler": lambda: [(SchedulerConfig.from_dict(content), "")],
    }[component]()
    names = OWN_NAMES.get(component, {})
    for found, prefix in parsed:
        for name in type(found).__dataclass_fields__:
            yield prefix + names.get(name, name), getattr(found, name)


def config(component: str, content: dict[str, Any]) -> CheckpointConfig:
    return CheckpointConfig((CONFIGS | {component: content}).__getitem__)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("component", CONFIGS)
def test_damage_is_named_or_means_what_the_reference_means(component: str, damage: str) -> None:
    for entry in CONFIGS[component]:
        content = CONFIGS[component] | {entry: DAMAGE[damage]}
        if damage == "removed":
            del content[entry]
        problems = config(component, content).problems()
        if not problems:
            try:
                wanted = meaning(component, content)
            except StrictDataclassFieldValidationError:
                assert entry in UNREAD or (damage, entry) == ("zero", "layer_norm_epsilon")
                continue
            for name, value in ours(component, content):
                expected = list(wanted[name]) if isinstance(wanted[name], tuple) else wanted[name]
                assert (list(value) if isinstance(value, tuple) else value) == expected, (entry, name)
        else:
            said = "; ".join(problem for problems in problems.values() for problem in problems)
            # A default in place of the entry may not fit to another one, which is then the one that is named.
            assert problems.keys() <= set(FILES.values()) and ("wanted" in said or "needs" in said), (entry, said)
            assert damage == "removed" or entry in said, (entry, said)


@pytest.mark.parametrize("component", CONFIGS)
def test_what_is_not_damaged_has_no_problems_and_every_entry_is_read(component: str) -> None:
    content = CONFIGS[component]
    assert config(component, content).problems() == {}
    assert (
        dict(ours(component, content)).items()
        <= {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in meaning(component, content).items()
        }.items()
    )


@pytest.mark.parametrize("component", CONFIGS)
def test_every_entry_of_the_reference_is_known(component: str) -> None:
    """All that the reference's own class writes, at its defaults, is read, compared, or known to change nothing."""
    if component == "text_encoder":
        own = transformers.T5Config(**CONFIGS[component]).to_dict()
    else:
        own = {k: v for k, v in meaning(component, {}).items() if k not in ("self", "args", "kwargs")}
    said = "; ".join(config(component, own).problems().get(FILES[component], []))
    assert "no entry that this version knows" not in said


@pytest.mark.parametrize("component", CONFIGS)
def test_an_entry_that_nobody_knows_is_named(component: str) -> None:
    found = config(component, CONFIGS[component] | {"quantization_config": {"bits": 4}, "_note": "mine"}).problems()
    (said,) = found[FILES[component]]
    assert "'quantization_config' is no entry that this version knows" in said and "_note" not in said


def test_everything_is_said_at_once() -> None:
    bad = {
        "transformer": CONFIGS["transformer"] | {"num_layers": "four", "LFE_depth": None, "ofs_embed_dim": 512},
        "vae": CONFIGS["vae"] | {"act_fn": "mish", "down_block_types": ["DownBlock2D"] * 4},
        "text_encoder": CONFIGS["text_encoder"] | {"dense_act_fn": "silu", "num_hidden_layers": 3},
        "scheduler": CONFIGS["scheduler"] | {"beta_end": "x", "trained_betas": [0.1]},
    }
    found = CheckpointConfig(bad.__getitem__).problems()
    assert [*found] == [FILES[component] for component in bad]
    for component, content in bad.items():
        wrong = [name for name in content if content[name] != CONFIGS[component].get(name)]
        said = "; ".join(found[FILES[component]])
        assert [name for name in wrong if name not in said] == []


@pytest.mark.parametrize(
    ("component", "change", "said"),
    [
        ("text_encoder", {"d_model": 64}, "d_model is 64, wanted 32 as text_embed_dim of transformer/config.json"),
        ("vae", {"latent_channels": 8}, "latent_channels is 8, wanted 16 as out_channels of transformer/config.json"),
        ("vae", {"temporal_compression_ratio": 2}, "temporal_compression_ratio is 2, wanted 4"),
        ("transformer", {"sample_frames": 5}, "needs 9 frames or more: sample_frames"),
        ("transformer", {"sample_height": 15}, "sample_height is 15, wanted k × patch_size (2)"),
    ],
)
def test_components_are_compared(component: str, change: dict[str, Any], said: str) -> None:
    found = config(component, CONFIGS[component] | change).problems()
    assert said in "; ".join(problem for problems in found.values() for problem in problems)


PREVIEW: dict[str, dict[str, Any]] = {
    "transformer": CONFIGS["transformer"]
    | {"LFE_dim_head": 64, "LFE_id_dim": 1280, "LFE_num_heads": 16, "LFE_output_dim": 2048, "LFE_vit_dim": 1024}
    | {"cross_attn_dim_head": 128, "cross_attn_num_heads": 16, "max_text_seq_length": 226, "num_attention_heads": 48}
    | {"num_layers": 42, "sample_frames": 49, "sample_height": 60, "sample_width": 90, "text_embed_dim": 4096}
    | {"time_embed_dim": 512, "_diffusers_version": "0.32.0.dev0", "_name_or_path": "ckpts"}
    | {"patch_bias": True, "patch_size_t": None, "ofs_embed_dim": None},
    "vae": CONFIGS["vae"]
    | {"block_out_channels": [128, 256, 256, 512], "layers_per_block": 3, "norm_num_groups": 32, "sample_height": 480}
    | {"sample_width": 720, "invert_scale_latents": False, "latents_mean": None, "latents_std": None}
    | {"shift_factor": None},
    "text_encoder": CONFIGS["text_encoder"]
    | {"_name_or_path": "google/t5-v1_1-xxl", "classifier_dropout": 0.0, "d_ff": 10240, "d_kv": 64, "d_model": 4096}
    | {"decoder_start_token_id": 0, "initializer_factor": 1.0, "num_decoder_layers": 24, "num_heads": 64}
    | {"num_layers": 24, "output_past": True, "torch_dtype": "bfloat16", "transformers_version": "4.46.2"}
    | {"use_cache": True, "vocab_size": 32128},
    "scheduler": CONFIGS["scheduler"] | {"_diffusers_version": "0.32.0.dev0"},
}
"""The released checkpoint's, with what the libraries of its time wrote beside them."""


def test_the_released_checkpoints_configurations_are_accepted() -> None:
    found = CheckpointConfig(PREVIEW.__getitem__)
    assert found.problems() == {}
    assert (found.geometry.frames, found.geometry.height, found.geometry.width) == (49, 480, 720)


@pytest.mark.parametrize(
    ("change", "gated"),
    [
        ({}, True),
        ({"feed_forward_proj": "relu", "dense_act_fn": "relu", "is_gated_act": False}, False),
        ({"dense_act_fn": "gelu_pytorch_tanh"}, True),
        ({"dense_act_fn": "silu"}, None),
        ({"dense_act_fn": "gelu"}, None),
        ({"dense_act_fn": "relu"}, None),
        ({"is_gated_act": False}, None),
        ({"feed_forward_proj": "gated-silu"}, None),
        ({"feed_forward_proj": "relu"}, True),  # the entries of their own have precedence
    ],
)
def test_the_feed_forward_is_the_one_that_transformers_builds(change: dict[str, Any], gated: bool | None) -> None:
    content = CONFIGS["text_encoder"] | change
    reference = transformers.T5Config(**content)
    if gated is None:
        with pytest.raises(CheckpointInvalid, match="wanted"):
            T5Config.from_dict(content)
    else:
        assert T5Config.from_dict(content).gated is gated is reference.is_gated_act
        assert reference.dense_act_fn in (("gelu_new", "gelu_pytorch_tanh") if gated else ("relu",))


def test_an_entry_that_diffusers_takes_its_default_for_has_that_default() -> None:
    content = CONFIGS["vae"] | {"scaling_factor": 0.7, "_use_default_values": ["scaling_factor"]}
    read = diffusers.AutoencoderKLCogVideoX.extract_init_dict(json.loads(json.dumps(content)))[0]
    assert "scaling_factor" not in read
    assert VAEConfig.from_dict(content).scaling_factor == meaning("vae", {})["scaling_factor"]
