"""The studies that `driftscope demo` carries out."""

from __future__ import annotations

from driftscope.config import StudySpec

DEMO = StudySpec(
    name="demo",
    title="Full fine-tuning against LoRA at matched learning rates, on the mini model",
    base={
        "dataset": "terrain",
        "epochs": 4,
        "train_images": 640,
        "val_images": 200,
        "probe_images": 200,
        "test_images": 500,
        "transfer_images": 500,
    },
    axes={
        "method": ("full_ft", "lora"),
        "learning_rate": (3e-4, 1e-3, 3e-3),
        "seed": (7, 11),
    },
)
FAST_DEMO = DEMO.model_copy(
    update={
        "name": "demo-fast",  # a name of its own: its runs are others than the demo's
        "base": {
            **DEMO.base,
            "epochs": 2,
            "train_images": 400,
            "val_images": 100,
            "probe_images": 100,
            "test_images": 300,
            "transfer_images": 300,
        },
        "axes": {**DEMO.axes, "learning_rate": (1e-3, 3e-3), "seed": (7,)},
    }
)
