"""Trains the transformer, and the text encoder with it; the local facial extractor comes from `local`.

The networks are diffusers' `ConsisIDTransformer3DModel` and transformers' `T5EncoderModel`. Of the paper's recipe
(arXiv 2411.17440): the portrait is another picture of the person in the clip (cross-face), the local path joins after
the global one (coarse-to-fine), every other step looks at the face alone (dynamic mask), and conditions are dropped, so
that guidance and ablations meet what training has met.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as distributed
from torch import Tensor, nn

from consisid_export.nano.tokenizer import write_tokenizer
from consisid_nano.world import prompt, scene
from consisid_training import local
from consisid_training.attention import PlainAttention
from consisid_training.configs import TEXT_ENCODER, TRANSFORMER
from consisid_training.device import DEVICE, half
from consisid_training.samples import FRAMES, Samples
from consisid_training.stage import Stage, weights

SEED = 61
COARSE = 0.1  # of the steps: only the global path
CHECK = 250
"""Steps from one look at people who are not trained on to the next."""
_KNOWN_BY = {"both": (1, 1), "local": (0, 1), "neither": (0, 0)}
"""Name in the log → whether image latents and face tokens are given."""


class Model(nn.Module):
    """Text encoder and transformer, the local path of each sample switchable."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        import diffusers
        import transformers

        make: Any = diffusers.ConsisIDTransformer3DModel
        self.transformer = make(**TRANSFORMER)
        self.transformer.set_attn_processor(PlainAttention())
        self.text_encoder: Any = transformers.T5EncoderModel(
            transformers.T5Config(vocab_size=vocabulary, **TEXT_ENCODER)
        )
        self.transformer.local_facial_extractor.requires_grad_(False)
        self._local: Tensor | None = None
        for layer in self.transformer.perceiver_cross_attention:
            layer.register_forward_hook(lambda module, inputs, output: self._switched(output))
        for block in self.transformer.transformer_blocks:
            for norm in (block.norm1, block.norm2):
                nn.init.zeros_(norm.linear.weight)
        nn.init.zeros_(self.transformer.proj_out.weight)

    def forward(self, noisy: Tensor, image: Tensor, times: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Velocity [B, F, 16, h, w] of noisy latents, beside image latents of the same shape; times [B]."""
        self._local = batch["local"][:, None, None]
        states = self.text_encoder(batch["ids"]).last_hidden_state
        frames, rows, columns = noisy.shape[1], noisy.shape[3] // 2, noisy.shape[4] // 2
        made = self.transformer(
            torch.cat((noisy, image), dim=2), states, times, image_rotary_emb=rotary(frames, rows, columns),
            id_cond=batch["identity"], id_vit_hidden=list(batch["hidden"].unbind(1)), return_dict=False,
        )[0]  # fmt: skip
        return cast(Tensor, made)

    def read_tokens_as(self, tensors: dict[str, Tensor]) -> None:
        """Start with the extractor and the attentions of `local.trained`; at first nothing comes out of these."""
        missing, unexpected = self.transformer.load_state_dict(tensors, strict=False)
        assert not unexpected and not any(name.startswith(("local_", "perceiver_")) for name in missing)
        for layer in self.transformer.perceiver_cross_attention:
            nn.init.zeros_(layer.to_out.weight)

    def _switched(self, output: Tensor) -> Tensor:
        return output if self._local is None else output * self._local.to(output.dtype)


def trained(folder: Path) -> Model:
    """As far as it has been trained in `folder`, evaluating."""
    found = weights(folder)
    network = Model(found["text_encoder.shared.weight"].shape[0])
    network.load_state_dict(found)
    return network.eval().requires_grad_(False)


def rotary(frames: int, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    from diffusers.models.embeddings import get_3d_rotary_pos_embed

    found: Any = get_3d_rotary_pos_embed(
        TRANSFORMER["attention_head_dim"], ((0, 0), (rows, columns)), (rows, columns), frames, device=DEVICE
    )
    return cast("tuple[Tensor, Tensor]", found)


def alphas() -> Tensor:
    """ᾱ of the scheduler that the checkpoint ships, with zero terminal signal: float32 [1000]."""
    from diffusers import CogVideoXDPMScheduler

    from consisid_export.nano.configs import SCHEDULER

    make: Any = CogVideoXDPMScheduler
    made = make(**{name: value for name, value in SCHEDULER.items() if name != "_class_name"})
    return cast(Tensor, made.alphas_cumprod).float()


def train(
    data: Path, encoded: Path, extractor: Path, folder: Path, *, steps: int, batch: int, people: int, short: float
) -> None:
    """`short` is the share of steps that see the first three latent frames only, which costs half."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world > 1:
        distributed.init_process_group("gloo")
    torch.manual_seed(SEED)
    tokenizer = folder / "tokenizer"
    if rank == 0 and not (tokenizer / "spiece.model").exists():
        sentences = [prompt(scene(number, held_out=False), number) for number in range(4000)]
        write_tokenizer(tokenizer, sentences, pieces=256)
    if world > 1:
        distributed.barrier()
    samples = Samples(data, encoded, tokenizer, people)
    network = Model(samples.vocabulary)
    network.read_tokens_as(local.trained(extractor))
    stage = Stage(
        folder, network, steps=steps, rate=2e-3, small_rate=1.4e-3, seed=SEED, average=0.999, device=DEVICE,
        together=world > 1,
        small=("shared", "embed_tokens", "proj_out", "relative_attention_bias", "latents"), writes=rank == 0,
    )  # fmt: skip
    signal = alphas().to(DEVICE)
    for step in stage.loop():
        rng = stage.rng(step, stream=rank)
        progress = step / steps
        drawn = samples.draw(rng.choice(samples.seen, batch), 3 if progress < short else FRAMES, rng)
        if progress < COARSE:
            drawn["local"].zero_()
        squared = _squared(network, drawn, signal, rng)
        error, face = squared.mean(), _over(squared, drawn["mask"].to(DEVICE))
        (face if step % 2 else error).backward()  # type: ignore[no-untyped-call]
        if world > 1:
            _average(network, stage)
        checked = _check(network, samples, signal) if rank == 0 and (step + 1) % CHECK == 0 else {}
        stage.apply(error=error.item(), face=face.item(), **checked)


def _squared(network: Model, drawn: dict[str, Tensor], signal: Tensor, rng: np.random.Generator) -> Tensor:
    """Squared error of the velocity (Salimans & Ho 2022), shape of the targets, at stratified times.

    The noisiest come most often: who somebody is, is decided there.
    """
    drawn = {name: tensor.to(DEVICE) for name, tensor in drawn.items()}
    targets = drawn["targets"]
    size = len(targets)
    spread = np.minimum(np.sqrt((np.arange(size) + rng.random(size)) / size) * 1000, 999).astype(np.int64)
    times = torch.from_numpy(spread).to(DEVICE)
    share = signal[times].view(-1, 1, 1, 1, 1)
    noise = torch.from_numpy(rng.standard_normal(targets.shape, np.float32)).to(DEVICE)
    noisy = share.sqrt() * targets + (1 - share).sqrt() * noise
    velocity = share.sqrt() * noise - (1 - share).sqrt() * targets
    with half():
        made = network(noisy, drawn["image"], times, drawn)
    return cast(Tensor, (made.float() - velocity).square())


@torch.no_grad()
def _check(network: Model, samples: Samples, signal: Tensor) -> dict[str, float]:
    """The error over the faces of some who are not trained on, by what they are known by; the same draws every time."""
    found = {}
    for name, (image, tokens) in _KNOWN_BY.items():
        rng = np.random.default_rng(SEED)
        drawn = samples.draw(samples.unseen[:24], FRAMES, rng, drop=False)
        drawn["image"] *= image
        drawn["local"] *= tokens
        found[f"unseen_{name}"] = _over(_squared(network, drawn, signal, rng), drawn["mask"].to(DEVICE)).item()
    return found


def _over(squared: Tensor, mask: Tensor) -> Tensor:
    return (squared * mask).sum() / (mask.sum() * squared.shape[2])


def _average(network: nn.Module, stage: Stage) -> None:
    """Every process applies the mean gradient; one that was told to stop stops all."""
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients] + [gradients[0].new_tensor([float(stage.told)])])
    distributed.all_reduce(flat)
    stage.stopping = bool(flat[-1] > 0)
    at = 0
    for gradient in gradients:
        gradient.copy_(flat[at : at + gradient.numel()].view_as(gradient) / distributed.get_world_size())
        at += gradient.numel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("encoded", type=Path)
    parser.add_argument("extractor", type=Path, help="where `local` was trained")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--batch", type=int, default=8, help="of each process")
    parser.add_argument("--people", type=int, default=36_000, help="how many are encoded")
    parser.add_argument("--short", type=float, default=0.5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # one process a core: two threads of one would wait for each other
    train(arguments.data, arguments.encoded, arguments.extractor, arguments.folder, steps=arguments.steps,
          batch=arguments.batch, people=arguments.people, short=arguments.short)  # fmt: skip
