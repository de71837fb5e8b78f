"""The sizes of the untrained checkpoints."""

from pathlib import Path
from typing import Any, cast

import pytest

from consisid_nano.untrained.configs import configs
from consisid_nano.untrained.write import write_untrained
from consisid_runtime.errors import InvalidOption
from consisid_runtime.models import networks
from consisid_runtime.models.configs.checkpoint import CheckpointConfig
from consisid_runtime.options import Options
from consisid_runtime.plan import plan


def test_mid_is_as_large_as_its_page_says() -> None:
    files: dict[str, dict[str, Any]] = configs("mid")
    files["text_encoder"]["vocab_size"] = 32
    config = CheckpointConfig(files.__getitem__)
    request = plan(Options(), config.geometry)
    assert (request.frames, request.height, request.width) == (17, 192, 224)
    tokens = request.latent_frames * request.rows * request.columns + config.transformer.max_text_seq_length
    assert (config.transformer.dim, tokens) == (576, 1066)
    assert networks.skeletons(config).keys() >= {"transformer", "vae", "text_encoder"}


def test_an_unknown_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="size must be one of small, mid, got 'large'"):
        write_untrained(tmp_path / "out", size=cast(Any, "large"))
    assert not list(tmp_path.iterdir())
