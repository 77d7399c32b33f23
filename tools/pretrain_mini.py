"""Pretrain driftscope's mini CLIP from scratch on the procedural image world.

    python tools/pretrain_mini.py --out src/driftscope/sources/mini
    python tools/pretrain_mini.py --patch-size 14 --out src/driftscope/sources/mini_p14

Stage 1 teaches the image tower the four attributes of every picture through linear heads that
are thrown away later; contrastive training alone did not find the shapes in an hour. Stage 2 is
contrastive image-text training from there, the heads kept at a low weight. The matrices of the
transformer layers are trained by Muon (Jordan et al. 2024), everything else by AdamW. The model
is rounded to fp16, measured, and written as a hub-layout folder with a model card.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pretraining_images import pretraining_batch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerFast

from driftscope.data.procedural import (
    ATTRIBUTES,
    IMAGE_SIZE,
    RENDERER_VERSION,
    SHAPES,
    concept_surroundings,
    load_procedural,
)

MEAN, STD = 0.5, 0.25
MAX_TOKENS = 16
PAD, UNKNOWN, START, END = "<|pad|>", "<|unknown|>", "<|startoftext|>", "<|endoftext|>"
# END must not get the id 2: transformers' CLIP then pools at the highest token id, not at END.
SPECIAL_TOKENS = {PAD: 0, UNKNOWN: 1, START: 2, END: 3}

BATCH_SIZE = 128
STAGE_1_SHARE = 0.45
DECAY_SHARE = 0.4
WARMUP_STEPS = 100
MUON_LEARNING_RATE, MUON_MOMENTUM, MUON_WEIGHT_DECAY = 0.02, 0.95, 0.02
ADAMW_LEARNING_RATE, ADAMW_WEIGHT_DECAY = 1e-3, 0.01
HEADS_WEIGHT = 0.2
HARD_NEGATIVES_EVERY = 5
MAX_LOGIT_SCALE = math.log(100)
REPORT_EVERY = 50


# --- the model --------------------------------------------------------------------------------


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of whole words: those of the caption grammar, anything else is unknown."""
    grammar = "a an photo picture image of on background shape"
    values = (value for attribute in ATTRIBUTES.values() for value in attribute)
    words = dict.fromkeys([*grammar.split(), *values])
    vocabulary = {**SPECIAL_TOKENS, **{word: 4 + i for i, word in enumerate(words)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}",
        special_tokens=[(token, SPECIAL_TOKENS[token]) for token in (START, END)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        bos_token=START,
        eos_token=END,
        model_max_length=MAX_TOKENS,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, patch_size: int) -> CLIPModel:
    """A small CLIP; with patches of 8 it has 49 patch tokens, with patches of 14 it has 16.

    Eager attention, which trains faster at this size.
    """
    size = {"hidden_act": "gelu", "num_attention_heads": 4, "projection_dim": 64}
    vision = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 6,
        "image_size": IMAGE_SIZE,
        "patch_size": patch_size,
        **size,
    }
    text = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 3,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": MAX_TOKENS,
        "pad_token_id": SPECIAL_TOKENS[PAD],
        "bos_token_id": SPECIAL_TOKENS[START],
        "eos_token_id": SPECIAL_TOKENS[END],
        **size,
    }
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=64)
    config._attn_implementation = "eager"
    return CLIPModel(config)


def normalised(pixels: Tensor, device: torch.device) -> Tensor:
    return (pixels.to(device).float() / 255 - MEAN) / STD


def embed_texts(model: CLIPModel, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> Tensor:
    """Unit-length text embeddings."""
    tokens = tokenizer(texts, padding=True, return_tensors="pt").to(model.device)
    pooled = model.text_model(tokens.input_ids, tokens.attention_mask).pooler_output
    return functional.normalize(model.text_projection(pooled), dim=-1)


# --- optimisation -----------------------------------------------------------------------------


class Muon:
    """Momentum with orthogonalised updates for matrices (Jordan et al. 2024).

    torch.optim.Muon iterates in bf16, which is very slow on CPUs without it; here matrices of
    equal shape are stacked and iterated in fp32.
    """

    def __init__(self, matrices: Sequence[nn.Parameter]) -> None:
        shapes = dict.fromkeys(matrix.shape for matrix in matrices)
        self._groups = [[m for m in matrices if m.shape == shape] for shape in shapes]
        self._momenta = [torch.zeros_like(torch.stack(list(group))) for group in self._groups]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        for group, momentum in zip(self._groups, self._momenta, strict=True):
            gradient = torch.stack([matrix.grad for matrix in group])
            momentum.lerp_(gradient, 1 - MUON_MOMENTUM)
            update = _orthogonalised(gradient.lerp(momentum, MUON_MOMENTUM))
            rows, columns = group[0].shape
            scale = learning_rate * math.sqrt(max(1.0, rows / columns))
            torch._foreach_mul_(group, 1 - learning_rate * MUON_WEIGHT_DECAY)
            torch._foreach_add_(group, list(update.unbind()), alpha=-scale)


def _orthogonalised(stack: Tensor) -> Tensor:
    """Nearly the closest orthogonal matrices, by five Newton-Schulz steps."""
    tall = stack.shape[-2] > stack.shape[-1]
    x = stack.mT if tall else stack
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if tall else x


class Optimizer:
    """Muon on the matrices of the transformer layers, AdamW on everything else."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        named = [pair for module in modules for pair in module.named_parameters()]
        in_layers = [p for name, p in named if ".layers." in name and p.ndim == 2]
        chosen = {id(p) for p in in_layers}
        rest = [p for _, p in named if id(p) not in chosen]
        self.parameters = [p for _, p in named]
        self._muon = Muon(in_layers)
        self._adamw = torch.optim.AdamW(
            [
                {"params": [p for p in rest if p.ndim > 1], "weight_decay": ADAMW_WEIGHT_DECAY},
                {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=ADAMW_LEARNING_RATE,
        )

    def step(self, rate: float) -> None:
        """One update at `rate` times the peak learning rates, then gradients cleared."""
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for group in self._adamw.param_groups:
            group["lr"] = rate * ADAMW_LEARNING_RATE
        self._adamw.step()
        self._muon.step(rate * MUON_LEARNING_RATE)
        for parameter in self.parameters:
            parameter.grad = None


def rate_at(step: int, num_steps: int, decay_share: float) -> float:
    """Linear warmup, constant, then linear decay over the last share of the steps."""
    warmup = min(1.0, (step + 1) / WARMUP_STEPS)
    decay = min(1.0, (num_steps - step) / max(1.0, decay_share * num_steps))
    return warmup * decay


# --- batches ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Worker:
    """One of the equal processes that share a batch.

    At this model's size two processes of one thread each train as fast as one of two threads on
    an idle machine, and several times faster where other programs run beside: they meet once a
    step, threads at every operation. Rendering takes about 5 % of a worker's time.
    """

    rank: int
    count: int
    device: torch.device

    def share(self, step: int) -> range:
        """The stream's indices that this worker takes in a step."""
        size = BATCH_SIZE // self.count
        first = step * BATCH_SIZE + self.rank * size
        return range(first, first + size)

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """The mean of all workers' gradients, in place."""
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        parts = (flat / self.count).split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def hard_negatives(seed: int, step: int) -> dict[str, list[int]] | None:
    """The one or two values of an attribute that every few batches are restricted to."""
    if step % HARD_NEGATIVES_EVERY:
        return None
    chooser = random.Random(f"{seed}:{step}")
    attribute = chooser.choice(list(ATTRIBUTES))
    values = range(len(ATTRIBUTES[attribute]))
    return {attribute: chooser.sample(values, chooser.choice([1, 2]))}


# --- training ---------------------------------------------------------------------------------


class AttributeHeads(nn.Module):
    """A linear classifier for each attribute, on the pooled output of the image tower."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(width, len(v)) for v in ATTRIBUTES.values())

    def forward(self, pooled: Tensor, attributes: Tensor) -> tuple[Tensor, Tensor]:
        """The summed cross-entropy, and the share of images right for each attribute."""
        logits = [head(pooled) for head in self.heads]
        pairs = list(zip(logits, attributes.unbind(1), strict=True))
        loss = torch.stack([functional.cross_entropy(guess, true) for guess, true in pairs]).sum()
        right = torch.stack([(guess.argmax(1) == true).float().mean() for guess, true in pairs])
        return loss, right


def contrastive_loss(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    caption_of_image: Tensor,
    logit_scale: Tensor,
) -> Tensor:
    """Symmetric InfoNCE over the batch's distinct captions; equal captions are one target."""
    logits = logit_scale.exp() * image_embeddings @ text_embeddings.T
    belongs = functional.one_hot(caption_of_image, len(text_embeddings)).float().T
    to_image = functional.cross_entropy(logits.T, belongs / belongs.sum(1, keepdim=True))
    return (functional.cross_entropy(logits, caption_of_image) + to_image) / 2


@dataclass
class Progress:
    """Prints a line now and then: loss, attributes read right, images a second."""

    total_steps: int
    started: float
    silent: bool

    def report(self, stage: int, step: int, loss: Tensor, right: Tensor) -> None:
        last = step == self.total_steps - 1
        if self.silent or (step % REPORT_EVERY and not last):
            return
        seconds = time.monotonic() - self.started
        speed = (step + 1) * BATCH_SIZE / seconds
        left = (self.total_steps - step - 1) * BATCH_SIZE / speed
        shares = ", ".join(
            f"{name} {100 * share:.0f} %"
            for name, share in zip(ATTRIBUTES, right.tolist(), strict=True)
        )
        print(
            f"stage {stage}  step {step + 1}/{self.total_steps}  loss {loss.item():.3f}  "
            f"{shares}  {speed:.0f} images/s  {left / 60:.1f} min left",
            flush=True,
        )


def train(
    model: CLIPModel, tokenizer: PreTrainedTokenizerFast, worker: Worker, seed: int, steps: int
) -> None:
    """Both stages, in place."""
    heads = AttributeHeads(model.config.vision_config.hidden_size).to(worker.device)
    boundary = round(STAGE_1_SHARE * steps)
    progress = Progress(steps, time.monotonic(), silent=worker.rank > 0)
    model.train()

    optimizer = Optimizer([model.vision_model, heads])
    for step in range(boundary):
        pixels, _, attributes = pretraining_batch(seed, worker.share(step))
        pooled = model.vision_model(normalised(pixels, worker.device)).pooler_output
        loss, right = heads(pooled, attributes.to(worker.device))
        loss.backward()
        worker.average_gradients(optimizer.parameters)
        optimizer.step(rate_at(step, boundary, decay_share=0.0))
        progress.report(1, step, loss, right)

    optimizer = Optimizer([model, heads])
    for step in range(boundary, steps):
        allowed = hard_negatives(seed, step)
        pixels, captions, attributes = pretraining_batch(seed, worker.share(step), allowed)
        pooled = model.vision_model(normalised(pixels, worker.device)).pooler_output
        images = functional.normalize(model.visual_projection(pooled), dim=-1)
        distinct = {caption: i for i, caption in enumerate(dict.fromkeys(captions))}
        texts = embed_texts(model, tokenizer, list(distinct))
        caption_of_image = torch.tensor([distinct[c] for c in captions], device=worker.device)
        loss = contrastive_loss(images, texts, caption_of_image, model.logit_scale)
        heads_loss, right = heads(pooled, attributes.to(worker.device))
        (loss + HEADS_WEIGHT * heads_loss).backward()
        worker.average_gradients(optimizer.parameters)
        optimizer.step(rate_at(step - boundary, steps - boundary, DECAY_SHARE))
        with torch.no_grad():
            model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        progress.report(2, step, loss, right)
    model.eval()


# --- measuring and writing --------------------------------------------------------------------


def round_to_half(model: CLIPModel) -> None:
    """Every parameter to the nearest fp16 number, so that what is measured is what is shipped."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half().float())


@dataclass(frozen=True)
class Score:
    """Zero-shot classification of the benchmark's images by one question."""

    num_correct: int
    num_images: int
    num_choices: int

    @property
    def accuracy_pct(self) -> float:
        return 100 * self.num_correct / self.num_images


@torch.no_grad()
def measure(model: CLIPModel, tokenizer: PreTrainedTokenizerFast) -> dict[str, Score]:
    """Zero-shot accuracy on concepts100, by class and by each attribute alone."""
    dataset = load_procedural("concepts100", "test")
    chunks = torch.arange(len(dataset)).split(250)
    pixels = (normalised(dataset.render(chunk), model.device) for chunk in chunks)
    images = torch.cat([model.get_image_features(chunk).pooler_output for chunk in pixels])
    fills, backgrounds = concept_surroundings(dataset).unbind(1)
    colours, shapes = dataset.labels // len(SHAPES), dataset.labels % len(SHAPES)
    true_values = dict(zip(ATTRIBUTES, (colours, shapes, fills, backgrounds), strict=True))
    words = [name.split() for name in dataset.class_names]
    choices = {"concepts100": [{"colour": colour, "shape": shape} for colour, shape in words]}
    choices |= {name: [{name: value} for value in values] for name, values in ATTRIBUTES.items()}
    scores = {}
    for name, truth in {"concepts100": dataset.labels, **true_values}.items():
        prompts = [QUESTIONS[name].format(**choice) for choice in choices[name]]
        guesses = (images @ embed_texts(model, tokenizer, prompts).T).argmax(1).cpu()
        scores[name] = Score(int((guesses == truth).sum()), len(truth), len(prompts))
    return scores


CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: zero-shot-image-classification
tags: [clip, driftscope]
---

# driftscope {name}

A small CLIP that driftscope ships so that everything can be tried and tested without a
download: a plain `transformers` CLIPModel. {vision_layers} image layers of width 128 with 4
heads, 56 x 56 images in {patches} patch tokens; {text_layers} text layers; a joint space of 64
dimensions; {parameters:,} parameters in fp16. It knows one coloured shape on a plain background
and the words for it, and nothing of the real world.

## Zero-shot accuracy

On the {images:,} images of `concepts100` (test split, seed 0), after rounding to fp16:

| question | prompt | chance | accuracy |
|---|---|---|---|
{table}

## Data

The procedural image world of `driftscope.data.procedural`, renderer version {renderer}: 10 shapes
in 10 colours and 4 fills on 6 backgrounds, with captions of varying completeness from a small
grammar.
The pretraining stream and `concepts100` share no image.

## Recipe

`python tools/pretrain_mini.py --patch-size {patch} --seed {seed} --samples {samples}`:
{steps:,} steps of {batch} images, {minutes:.0f} minutes on {machine}.

1. {stage_1:,} images: the image tower learns the four attributes through linear heads.
2. {stage_2:,} images: contrastive training with the captions, equal captions being one target; the
   heads stay at weight {heads}; in every {hard}th batch one attribute takes only one or two values.

Muon (learning rate {muon}) on the matrices of the transformer layers, AdamW ({adamw}) on the
rest; the rates fall linearly over the last {decay:.0%} of stage 2.
"""

QUESTIONS = {
    "concepts100": "a photo of a {colour} {shape}",
    "colour": "a photo of a {colour} shape",
    "shape": "a photo of a {shape}",
    "fill": "a photo of a {fill} shape",
    "background": "a photo of a shape on a {background} background",
}


def write_card(
    folder: Path,
    model: CLIPModel,
    scores: dict[str, Score],
    arguments: argparse.Namespace,
    *,
    steps: int,
    minutes: float,
) -> None:
    stage_1 = round(STAGE_1_SHARE * steps) * BATCH_SIZE
    samples = steps * BATCH_SIZE
    on_gpu = model.device.type == "cuda"
    machine = torch.cuda.get_device_name() if on_gpu else f"{os.cpu_count()} CPU cores"
    rows = [
        f"| {name} | {QUESTIONS[name]} | {100 / score.num_choices:.0f} % "
        f"| {score.accuracy_pct:.2f} % |"
        for name, score in scores.items()
    ]
    patch = model.config.vision_config.patch_size
    card = CARD.format(
        name=folder.name.replace("_", "-"),
        patch=patch,
        patches=(IMAGE_SIZE // patch) ** 2,
        vision_layers=model.config.vision_config.num_hidden_layers,
        text_layers=model.config.text_config.num_hidden_layers,
        parameters=model.num_parameters(),
        images=scores["concepts100"].num_images,
        table="\n".join(rows),
        renderer=RENDERER_VERSION,
        seed=arguments.seed,
        samples=samples,
        batch=BATCH_SIZE,
        minutes=minutes,
        machine=machine,
        steps=steps,
        stage_1=stage_1,
        stage_2=samples - stage_1,
        heads=HEADS_WEIGHT,
        hard=HARD_NEGATIVES_EVERY,
        muon=MUON_LEARNING_RATE,
        adamw=ADAMW_LEARNING_RATE,
        decay=DECAY_SHARE,
    )
    (folder / "README.md").write_text(card)


def write_weights(folder: Path, model: CLIPModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """The hub layout: config, fp16 weights, tokenizer, image processor."""
    model.cpu().half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": IMAGE_SIZE},
        crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        image_mean=[MEAN] * 3,
        image_std=[STD] * 3,
    ).save_pretrained(folder)


def work(rank: int, workers: int, meeting: str, arguments: argparse.Namespace) -> None:
    """One worker's part; the first one measures and writes."""
    device = torch.device(arguments.device)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    if workers > 1:
        distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=workers)
    torch.manual_seed(arguments.seed)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, arguments.patch_size).to(device)
    steps = math.ceil(arguments.samples / BATCH_SIZE)
    started = time.monotonic()
    train(model, tokenizer, Worker(rank, workers, device), arguments.seed, steps)
    minutes = (time.monotonic() - started) / 60
    if rank == 0:
        round_to_half(model)
        scores = measure(model, tokenizer)
        for name, score in scores.items():
            print(f"{name}: {score.accuracy_pct:.2f} % of {score.num_images} images")
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_card(arguments.out, model, scores, arguments, steps=steps, minutes=minutes)
        write_weights(arguments.out, model, tokenizer)
    if workers > 1:
        distributed.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--patch-size", type=int, default=8, choices=[7, 8, 14, 28], help="side of a patch, pixels"
    )
    parser.add_argument("--samples", type=int, default=320_000, help="images seen, both stages")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda"
    )
    arguments = parser.parse_args()
    workers = 1 if arguments.device.startswith("cuda") else min(2, os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as scratch:
        meeting = Path(scratch, "meeting").as_uri()
        multiprocessing.spawn(work, args=(workers, meeting, arguments), nprocs=workers)


if __name__ == "__main__":
    main()
