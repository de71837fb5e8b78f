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
from consisid_nano.world import HEIGHT, WIDTH, prompt, scene
from consisid_training import local
from consisid_training.attention import PlainAttention
from consisid_training.configs import LENGTH, TEXT_ENCODER, TRANSFORMER
from consisid_training.data import load, scene_of
from consisid_training.device import DEVICE, half
from consisid_training.stage import Stage, weights

SEED = 61
DROP_PROMPT, DROP_IMAGE, DROP_FACE = 0.1, 0.35, 0.12
COARSE = 0.1  # of the steps: only the global path
FRAMES = 5  # latent frames of a whole clip


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


class Samples:
    """Draws batches from the encoded set."""

    def __init__(self, data: Path, encoded: Path, tokenizer: Path, people: int) -> None:
        import sentencepiece

        self.people = people
        self.arrays = {name: load(encoded, name) for name in ("targets", "moments", "identity", "hidden")}
        self.points = load(data, "points")
        self.scale = 1 / float(np.asarray(self.arrays["targets"][:500], np.float32).std())
        self._pieces = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer / "spiece.model"))

    def ids(self, texts: list[str]) -> Tensor:
        rows = [[*self._pieces.encode(text), 1][:LENGTH] for text in texts]
        return torch.tensor([row + [0] * (LENGTH - len(row)) for row in rows])

    def draw(self, size: int, frames: int, coarse: bool, rng: np.random.Generator) -> dict[str, Tensor]:
        rows = rng.integers(self.people, size=size)

        def pick(name: str) -> Tensor:
            return torch.from_numpy(np.stack([self.arrays[name][row] for row in rows]).astype(np.float32))

        def keep(share: float) -> Tensor:
            return torch.from_numpy((rng.random(size) >= share).astype(np.float32))

        mean, logvar = pick("moments")[np.arange(size), rng.integers(2, size=size)].chunk(2, dim=1)
        image = mean + (0.5 * logvar).exp() * torch.from_numpy(rng.standard_normal(mean.shape, np.float32))
        targets = pick("targets")[:, :frames] * self.scale
        padded = torch.zeros_like(targets)
        padded[:, 0] = image * self.scale * keep(DROP_IMAGE)[:, None, None, None]
        said = keep(DROP_PROMPT)
        texts = [prompt(scene_of(int(row)), int(rng.integers(2**31))) if said[i] else "" for i, row in enumerate(rows)]
        return {
            "targets": targets, "image": padded, "ids": self.ids(texts), "identity": pick("identity"),
            "hidden": pick("hidden"), "local": torch.zeros(size) if coarse else keep(DROP_FACE),
            "mask": self._faces(rows, frames),
        }  # fmt: skip

    def _faces(self, rows: Any, frames: int) -> Tensor:
        """Where faces are, per latent: float32 [B, frames, 1, 16, 24]."""
        mask = torch.zeros(len(rows), frames, 1, HEIGHT // 4, WIDTH // 4)
        for i, row in enumerate(rows):
            for frame in range(frames):
                seen = self.points[row][max(0, 4 * frame - 3) : 4 * frame + 1].reshape(-1, 2)
                (left, top), (right, bottom) = seen.min(0), seen.max(0)
                apart = 0.6 * (right - left)
                box = [
                    max(0, round(edge / 4)) for edge in (left - apart, top - 1.4 * apart, right + apart, bottom + apart)
                ]
                mask[i, frame, 0, box[1] : box[3] + 1, box[0] : box[2] + 1] = 1
        return mask


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
        sentences = [prompt(scene(number), number) for number in range(4000)]
        write_tokenizer(tokenizer, sentences, pieces=256)
    if world > 1:
        distributed.barrier()
    samples = Samples(data, encoded, tokenizer, people)
    network = Model(samples._pieces.vocab_size() + 100)
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
        drawn = samples.draw(batch, 3 if progress < short else FRAMES, progress < COARSE, rng)
        drawn = {name: tensor.to(DEVICE) for name, tensor in drawn.items()}
        loss, errors = _loss(network, drawn, signal, rng, masked=step % 2 == 1)
        loss.backward()  # type: ignore[no-untyped-call]
        if world > 1:
            _average(network, stage)
        stage.apply(loss=loss.item(), **errors)


def _loss(
    network: Model, drawn: dict[str, Tensor], signal: Tensor, rng: np.random.Generator, masked: bool
) -> tuple[Tensor, dict[str, float]]:
    """Squared error of the velocity (Salimans & Ho 2022) at stratified times, the noisiest most often: who somebody is,
    is decided there.

    For the log the same over whole frames, and over the faces of those who are known by the local path alone.
    """
    targets = drawn["targets"]
    size = len(targets)
    spread = np.minimum(np.sqrt((np.arange(size) + rng.random(size)) / size) * 1000, 999).astype(np.int64)
    times = torch.from_numpy(spread).to(targets.device)
    share = signal[times].view(-1, 1, 1, 1, 1)
    noise = torch.from_numpy(rng.standard_normal(targets.shape, np.float32)).to(targets.device)
    noisy = share.sqrt() * targets + (1 - share).sqrt() * noise
    velocity = share.sqrt() * noise - (1 - share).sqrt() * targets
    with half():
        made = network(noisy, drawn["image"], times, drawn)
    squared = (made.float() - velocity).square()
    error, mask = squared.mean(), drawn["mask"]
    errors = {"error": error.item()}
    alone = (drawn["image"][:, 0].abs().sum((1, 2, 3)) == 0) & (drawn["local"] > 0)
    if alone.any():
        errors["local_alone"] = (_over(squared[alone], mask[alone])).item()
    return (_over(squared, mask) if masked else error), errors


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
    parser.add_argument("--people", type=int, default=12_000, help="how many are encoded")
    parser.add_argument("--short", type=float, default=0.5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # one process a core: two threads of one would wait for each other
    train(arguments.data, arguments.encoded, arguments.extractor, arguments.folder, steps=arguments.steps,
          batch=arguments.batch, people=arguments.people, short=arguments.short)  # fmt: skip
