"""What one reading costs, against a plain forward pass and against the usual two eager passes.

    python benchmarks/probe.py                       # all three towers on the CPU
    python benchmarks/probe.py --device cuda --images 256 --batch-size 64
    python benchmarks/probe.py --quick               # a minute, for a first look

Towers have the real geometry and random weights. Variants are timed in turn, round after round
(A B C D A B C D …), so that a machine that slows down slows all of them; ratios are taken within a
round, then the median over rounds. Memory is the peak of a child process of its own for each
variant: resident memory on the CPU (the peak counter is reset after the model is loaded and warm),
allocated memory on CUDA.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from driftscope import reading_pass

# Geometry, and how many images a 2-core CPU reads in a few seconds.
TOWERS: dict[str, tuple[dict[str, int], int]] = {
    "B/32": ({"image_size": 224, "patch_size": 32, "num_hidden_layers": 12}, 64),
    "B/16": ({"image_size": 224, "patch_size": 16, "num_hidden_layers": 12}, 16),
    "L/14-336": ({"image_size": 336, "patch_size": 14, "num_hidden_layers": 24}, 4),
}
WIDTHS = {"B": (768, 12, 3072), "L": (1024, 16, 4096)}
MIB = 2**20


def build_tower(name: str, device: str) -> CLIPVisionModelWithProjection:
    width, heads, mlp = WIDTHS[name[0]]
    config = CLIPVisionConfig(
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=mlp,
        projection_dim=512,
        **TOWERS[name][0],
    )
    torch.manual_seed(0)
    return CLIPVisionModelWithProjection(config).eval().to(device)


def plain_forward(model: Any, pixels: Tensor, batch_size: int) -> None:
    """(a) The embeddings alone, on SDPA."""
    with torch.no_grad():
        for batch in pixels.split(batch_size):
            model(pixel_values=batch).image_embeds.cpu()


def reading(model: Any, pixels: Tensor, batch_size: int) -> None:
    """(b) Our reading: every signal but those of full maps."""
    reading_pass.read(model, pixels, batch_size=batch_size)


def reading_with_maps(model: Any, pixels: Tensor, batch_size: int) -> None:
    """(b) Our reading with rollout and patch-to-patch entropy."""
    reading_pass.read(model, pixels, batch_size=batch_size, maps=True)


def two_eager_passes(model: Any, pixels: Tensor, batch_size: int) -> None:
    """(c) The usual way, without computing any signal: all maps, then all hidden states."""
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            for batch in pixels.split(batch_size):
                maps = model.vision_model(pixel_values=batch, output_attentions=True).attentions
                _ = [layer[:, :, 0, 1:].cpu() for layer in maps]
                del maps
            for batch in pixels.split(batch_size):
                out = model(pixel_values=batch, output_hidden_states=True)
                _ = [state[:, 0].cpu() for state in out.hidden_states]
                out.image_embeds.cpu()
    finally:
        model.set_attn_implementation("sdpa")


VARIANTS: dict[str, Callable[[Any, Tensor, int], None]] = {
    "plain SDPA forward": plain_forward,
    "driftscope reading": reading,
    "… with full maps": reading_with_maps,
    "two eager passes": two_eager_passes,
}
# On a machine that others use too, CPU time with --threads 1 is the steadier clock.
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
BASELINE = "plain SDPA forward"


def random_images(name: str, num_images: int, device: str) -> Tensor:
    size = TOWERS[name][0]["image_size"]
    generator = torch.Generator().manual_seed(1)
    return torch.randn(num_images, 3, size, size, generator=generator).to(device)


def wait_for(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def time_variants(
    name: str, num_images: int, batch_size: int, repeats: int, device: str, clock: str
) -> dict[str, list[float]]:
    """Seconds of every variant in every round."""
    now = CLOCKS[clock]
    model = build_tower(name, device)
    pixels = random_images(name, num_images, device)
    for variant in VARIANTS.values():
        variant(model, pixels[:2], batch_size)
    seconds: dict[str, list[float]] = {label: [] for label in VARIANTS}
    for _ in range(repeats):
        for label, variant in VARIANTS.items():
            wait_for(device)
            start = now()
            variant(model, pixels, batch_size)
            wait_for(device)
            seconds[label].append(now() - start)
    return seconds


def peak_memory_mib(label: str, name: str, num_images: int, batch_size: int, device: str) -> dict:
    """Peak memory of one variant, measured in a process that runs nothing else."""
    job = {
        "label": label,
        "name": name,
        "num_images": num_images,
        "batch_size": batch_size,
        "device": device,
    }
    command = [sys.executable, __file__, "--memory-of", json.dumps(job)]
    command += ["--threads", str(torch.get_num_threads())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure_own_memory(
    label: str, name: str, num_images: int, batch_size: int, device: str
) -> dict[str, float]:
    """In the child: memory with the model loaded and warm, and the peak while the variant runs."""
    model = build_tower(name, device)
    pixels = random_images(name, num_images, device)
    VARIANTS[label](model, pixels[:1], batch_size)
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / MIB
        VARIANTS[label](model, pixels, batch_size)
        wait_for(device)
        return {"before": before, "peak": torch.cuda.max_memory_allocated() / MIB}
    before = reset_peak_resident()
    VARIANTS[label](model, pixels, batch_size)
    return {"before": before, "peak": peak_resident()}


def reset_peak_resident() -> float:
    """Resident MiB now, after setting the peak counter back to it where Linux lets us."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return peak_resident()
    return status_mib("VmRSS")


def peak_resident() -> float:
    if Path("/proc/self/status").exists():
        return status_mib("VmHWM")
    maximum = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return maximum / MIB if sys.platform == "darwin" else maximum / 1024


def status_mib(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def report(
    console: Console,
    name: str,
    num_images: int,
    batch_size: int,
    repeats: int,
    device: str,
    clock: str,
) -> None:
    seconds = time_variants(name, num_images, batch_size, repeats, device, clock)
    memory = {
        label: peak_memory_mib(label, name, num_images, batch_size, device) for label in VARIANTS
    }
    table = Table(title=f"{name}: {num_images} images, batches of {batch_size}, {repeats} rounds")
    table.add_column("variant")
    for column in (
        "images/s",
        "time ÷ plain",
        "speed-up on eager",
        "peak MiB",
        "peak ÷ plain",
        "MiB above the loaded model",
    ):
        table.add_column(column, justify="right")
    for label, times in seconds.items():
        of_plain = [t / plain for t, plain in zip(times, seconds[BASELINE], strict=True)]
        of_eager = [e / t for t, e in zip(times, seconds["two eager passes"], strict=True)]
        peak = memory[label]["peak"]
        table.add_row(
            label,
            f"{num_images / statistics.median(times):.2f}",
            f"{statistics.median(of_plain):.3f}",
            f"{statistics.median(of_eager):.2f}",
            f"{peak:.0f}",
            f"{peak / memory[BASELINE]['peak']:.2f}",
            f"{peak - memory[label]['before']:.0f}",
        )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--towers", nargs="+", choices=TOWERS, default=list(TOWERS))
    parser.add_argument("--images", type=int, help="images per tower (default: by tower)")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--quick", action="store_true", help="B/32 alone, 16 images, 3 rounds")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.memory_of:
        print(json.dumps(measure_own_memory(**json.loads(arguments.memory_of))))
        return
    console = Console(width=120)
    console.print(
        f"torch {torch.__version__}, {arguments.device}, {torch.get_num_threads()} CPU threads, "
        f"{arguments.clock} time"
    )
    for name in ["B/32"] if arguments.quick else arguments.towers:
        num_images = arguments.images or (16 if arguments.quick else TOWERS[name][1])
        repeats = min(arguments.repeats, 3) if arguments.quick else arguments.repeats
        report(
            console,
            name,
            num_images,
            arguments.batch_size,
            repeats,
            arguments.device,
            arguments.clock,
        )


if __name__ == "__main__":
    main()
