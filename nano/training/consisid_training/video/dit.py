"""Trains the transformer and the text encoder; the local facial extractor comes from `local` and is frozen.

The networks are diffusers' `ConsisIDTransformer3DModel` and transformers' `T5EncoderModel`. From the paper's recipe
(arXiv 2411.17440): the portrait is another picture of the person in the clip (cross-face), the local path is enabled
after the global one (coarse-to-fine), the loss over faces is added to the loss over all (dynamic mask), and conditions
are dropped, which guidance and identity ablations need. A perceptual loss through `latent_reader` is added.
"""

from __future__ import annotations

import argparse
import os
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as distributed
from torch import Tensor, nn

from consisid_nano.untrained.tokenizer import write_tokenizer
from consisid_nano.world import prompt, scene
from consisid_training.loop.device import DEVICE, autocast
from consisid_training.loop.resumable import TrainingRun, weights
from consisid_training.video import latent_reader, local
from consisid_training.video.attention import PlainAttention
from consisid_training.video.configs import LENGTH, TEXT_ENCODER, TRANSFORMER
from consisid_training.video.samples import FRAMES, WHOLE, Samples

SEED = 61
COARSE_SHARE = 0.1  # share of the steps with the global path alone
SEEN_FRAMES = 2
"""Latent frames, of `FRAMES`, in most steps: the first and random others."""
READER_WEIGHT = 0.1
"""Weight of `latent_reader.distance` in the loss."""
CHECK_EVERY = 250
"""Steps between evaluations on unseen people."""
_KNOWN_BY = {"both": (1, 1), "local": (0, 1), "neither": (0, 0)}
"""Name in the log → whether image latents and face tokens are given."""


class Model(nn.Module):
    """Text encoder and transformer; the local path can be disabled for each sample."""

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
        extractor = self.transformer.local_facial_extractor.requires_grad_(False)
        extractor.forward = lambda tokens, hidden: tokens  # `latents` has stored the tokens
        self.transformer.patch_embed._get_positional_embeddings = lambda *sizes, device: self._positions()
        self._frames = torch.from_numpy(WHOLE)
        self._local: Tensor | None = None
        for layer in self.transformer.perceiver_cross_attention:
            layer.register_forward_hook(lambda module, inputs, output: self._gated(output))
        for block in self.transformer.transformer_blocks:
            for norm in (block.norm1, block.norm2):
                nn.init.zeros_(norm.linear.weight)
        nn.init.zeros_(self.transformer.proj_out.weight)

    def forward(self, noisy: Tensor, image: Tensor, times: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Predict the velocity [B, F, 16, h, w] from noisy and image latents of the same shape, at times [B]."""
        self._local, self._frames = batch["local"][:, None, None], batch["frames"]
        states = self.text_encoder(batch["ids"]).last_hidden_state
        cos, sin = (
            torch.unflatten(part.to(noisy.device), 0, (FRAMES, -1))[self._frames].flatten(0, 1)
            for part in rotary(noisy.shape[3] // 2, noisy.shape[4] // 2)
        )
        made = self.transformer(
            torch.cat((noisy, image), dim=2), states, times, image_rotary_emb=(cos, sin), id_cond=batch["tokens"],
            id_vit_hidden=[], return_dict=False,
        )[0]  # fmt: skip
        return cast(Tensor, made)

    def load_local_path(self, tensors: dict[str, Tensor]) -> None:
        """Load the extractor and the attentions of `local.trained`; the attentions' outputs start at 0."""
        missing, unexpected = self.transformer.load_state_dict(tensors, strict=False)
        assert not unexpected and not any(name.startswith(("local_", "perceiver_")) for name in missing)
        for layer in self.transformer.perceiver_cross_attention:
            nn.init.zeros_(layer.to_out.weight)

    def _positions(self) -> Tensor:
        """Return the positional embeddings of text and of the selected latent frames."""
        found = self.transformer.patch_embed.pos_embedding
        text, video = found[:, :LENGTH], torch.unflatten(found[:, LENGTH:], 1, (FRAMES, -1))
        return torch.cat((text, video[:, self._frames].flatten(1, 2)), dim=1)

    def _gated(self, output: Tensor) -> Tensor:
        return output if self._local is None else output * self._local.to(output.dtype)


def trained(folder: Path) -> Model:
    """Return the network trained in `folder`, in evaluation mode."""
    found = weights(folder)
    network = Model(found["text_encoder.shared.weight"].shape[0])
    network.load_state_dict(found)
    return network.eval().requires_grad_(False)


@cache
def rotary(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Return cos and sin [`FRAMES` · rows · columns, 64] of every patch."""
    from diffusers.models.embeddings import get_3d_rotary_pos_embed

    found: Any = get_3d_rotary_pos_embed(
        TRANSFORMER["attention_head_dim"], ((0, 0), (rows, columns)), (rows, columns), FRAMES, device=DEVICE
    )
    return cast("tuple[Tensor, Tensor]", found)


def alphas() -> Tensor:
    """Return ᾱ of the checkpoint's scheduler, with zero terminal SNR: float32 [1000]."""
    from diffusers import CogVideoXDPMScheduler

    from consisid_nano.untrained.configs import SCHEDULER

    make: Any = CogVideoXDPMScheduler
    made = make(**{name: value for name, value in SCHEDULER.items() if name != "_class_name"})
    return cast(Tensor, made.alphas_cumprod).float()


def train(
    data: Path, encoded: Path, runs: Path, folder: Path, *, steps: int, batch: int, people: int, first: int = 0,
    whole: float, start: Path | None = None, rate: float = 2e-3,
) -> None:  # fmt: skip
    """Train in `folder`; `runs` holds `local` and `latent_reader`.

    Args:
        batch: samples of each process. people, first: number of people, and the first.
        whole: share of steps that use every latent frame.
        start: run whose weights are continued (`further`), without coarse steps. rate: Muon's learning rate.
    """
    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if processes > 1:
        distributed.init_process_group("gloo")
    torch.manual_seed(SEED)
    tokenizer = folder / "tokenizer"
    if rank == 0 and not (tokenizer / "spiece.model").exists():
        if start is None:
            sentences = [prompt(scene(number, held_out=False), number) for number in range(4000)]
            write_tokenizer(tokenizer, sentences, pieces=256)
        else:
            shutil.copytree(start / "tokenizer", tokenizer, dirs_exist_ok=True)
    if processes > 1:
        distributed.barrier()
    samples = Samples(data, encoded, tokenizer, people, first)
    network = Model(samples.vocabulary)
    if start is None:
        network.load_local_path(local.trained(runs / "local"))
    else:
        network.load_state_dict(weights(start))
    run = TrainingRun(
        folder, network, steps=steps, rate=rate, adamw_rate=0.7 * rate, seed=SEED, average=max(0.0, 1 - 12 / steps),
        device=DEVICE, data_parallel=processes > 1, decay=0.45 if start is None else 1.0,
        adamw=("shared", "embed_tokens", "proj_out", "relative_attention_bias", "latents"), writes=rank == 0,
    )  # fmt: skip
    signal, critic = alphas().to(DEVICE), latent_reader.trained(runs / "latent_reader").to(DEVICE)
    for step in run.loop():
        rng, shared = run.rng(step, stream=rank), run.rng(step, stream=processes)
        others = np.sort(1 + shared.permutation(FRAMES - 1)[: SEEN_FRAMES - 1])
        frames = WHOLE if shared.random() < whole else np.concatenate([WHOLE[:1], others])
        drawn = samples.draw(rng.choice(samples.seen, batch), frames, rng)
        if start is None and step < COARSE_SHARE * steps:
            drawn["local"].zero_()
        predicted = _predict(network, drawn, signal, rng)
        error, face = predicted.squared.mean(), _over(predicted.squared, drawn["mask"].to(DEVICE))
        unlike = predicted.reader_distance(critic, rng)
        (error + face + READER_WEIGHT * unlike).backward()  # type: ignore[no-untyped-call]
        if processes > 1:
            _average(network, run)
        checked = _check(network, samples, signal, critic) if rank == 0 and (step + 1) % CHECK_EVERY == 0 else {}
        run.apply(error=error.item(), face=face.item(), unlike=unlike.item(), **checked)


@dataclass(frozen=True, slots=True)
class _Prediction:
    """The network's prediction for a batch.

    Attributes:
        squared: squared error of the velocity (Salimans & Ho 2022), float32 [B, F, 16, 16, 24].
        clean, target: predicted and true latents without noise, of the same shape. share: ᾱ, float32 [B].
    """

    squared: Tensor
    clean: Tensor
    target: Tensor
    share: Tensor

    def reader_distance(self, critic: latent_reader.LatentReader, rng: np.random.Generator) -> Tensor:
        """Return the mean reader distance of one random frame of each sample, weighted by the square root of ᾱ."""
        rows, frames = np.arange(len(self.clean)), rng.integers(self.clean.shape[1], size=len(self.clean))
        found = latent_reader.distance(critic, self.clean[rows, frames], self.target[rows, frames])
        return (self.share.sqrt() * found).mean()


def _predict(network: Model, drawn: dict[str, Tensor], signal: Tensor, rng: np.random.Generator) -> _Prediction:
    """Predict at stratified times. Noisy ones are more frequent, because they decide the identity."""
    drawn = {name: tensor.to(DEVICE) for name, tensor in drawn.items()}
    targets = drawn["targets"]
    size = len(targets)
    spread = np.minimum(np.sqrt((np.arange(size) + rng.random(size)) / size) * 1000, 999).astype(np.int64)
    times = torch.from_numpy(spread).to(DEVICE)
    share = signal[times].view(-1, 1, 1, 1, 1)
    noise = torch.from_numpy(rng.standard_normal(targets.shape, np.float32)).to(DEVICE)
    noisy = share.sqrt() * targets + (1 - share).sqrt() * noise
    velocity = share.sqrt() * noise - (1 - share).sqrt() * targets
    with autocast():
        made = network(noisy, drawn["image"], times, drawn).float()
    return _Prediction(
        (made - velocity).square(), share.sqrt() * noisy - (1 - share).sqrt() * made, targets, share.flatten()
    )


@torch.no_grad()
def _check(network: Model, samples: Samples, signal: Tensor, critic: latent_reader.LatentReader) -> dict[str, float]:
    """Evaluate unseen people with each combination of conditions: error over faces, and reader distance.

    The random draws are the same every time.
    """
    found = {}
    for name, (image, tokens) in _KNOWN_BY.items():
        rng = np.random.default_rng(SEED)
        drawn = samples.draw(samples.unseen[:24], WHOLE, rng, drop=False)
        drawn["image"] *= image
        drawn["local"] *= tokens
        predicted = _predict(network, drawn, signal, rng)
        found[f"unseen_{name}"] = _over(predicted.squared, drawn["mask"].to(DEVICE)).item()
        found[f"unseen_unlike_{name}"] = predicted.reader_distance(critic, rng).item()
    return found


def _over(squared: Tensor, mask: Tensor) -> Tensor:
    return (squared * mask).sum() / (mask.sum() * squared.shape[2])


def _average(network: nn.Module, run: TrainingRun) -> None:
    """Average gradients over the processes, and stop all if a stop was requested of one."""
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients] + [gradients[0].new_tensor([float(run.stop_requested)])])
    distributed.all_reduce(flat)
    run.stopping = bool(flat[-1] > 0)
    at = 0
    for gradient in gradients:
        gradient.copy_(flat[at : at + gradient.numel()].view_as(gradient) / distributed.get_world_size())
        at += gradient.numel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the training set")
    parser.add_argument("encoded", type=Path, help="folder of the encoded training set")
    parser.add_argument("runs", type=Path, help="folder of the training runs, with local and latent_reader")
    parser.add_argument("folder", type=Path, help="of this training run")
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--batch", type=int, default=8, help="samples of each process")
    parser.add_argument("--people", type=int, default=36_000, help="number of encoded people")
    parser.add_argument("--first", type=int, default=0, help="seed of the first of them")
    parser.add_argument("--whole", type=float, default=0.3, help="share of steps that use every latent frame")
    parser.add_argument("--further", type=Path, help="run to continue from, written by `further reopen`")
    parser.add_argument("--rate", type=float, default=2e-3, help="Muon's learning rate")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # one process a core
    train(arguments.data, arguments.encoded, arguments.runs, arguments.folder, steps=arguments.steps,
          batch=arguments.batch, people=arguments.people, first=arguments.first, whole=arguments.whole,
          start=arguments.further, rate=arguments.rate)  # fmt: skip
