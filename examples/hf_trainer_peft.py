"""The transformers Trainer trains a LoRA on a CLIP, and the monitor logs beside its losses."""

from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import Trainer, TrainingArguments

import driftscope as ds
from driftscope.integrations.hf_trainer import MonitorCallback


class Classifier(nn.Module):
    def __init__(self, clip, num_classes):
        super().__init__()
        self.clip, self.head = clip, nn.Linear(clip.config.projection_dim, num_classes)

    def forward(self, pixel_values, labels):
        logits = self.head(self.clip.get_image_features(pixel_values).pooler_output)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def samples(indices):
    pixels = model.normalise(data.pixels(indices, model.image_size))
    return [{"pixel_values": x, "labels": data.labels[i]} for i, x in enumerate(pixels, indices[0])]


data = ds.open_dataset("terrain", "train")
model = ds.load("mini")  # or your own, such as "openai/clip-vit-base-patch32"
monitor = ds.Monitor("mini", "terrain", transfer="concepts100", transfer_images=300)
lora = LoraConfig(target_modules=r".*vision_model.*\.(q|v)_proj", modules_to_save=["head"])
trainer = Trainer(
    get_peft_model(Classifier(model.module, num_classes=10), lora),
    TrainingArguments("trained", num_train_epochs=3, learning_rate=3e-3, eval_strategy="epoch"),
    train_dataset=samples(range(320)),
    eval_dataset=samples(range(320, 520)),
    compute_metrics=lambda seen: {"accuracy": (seen[0].argmax(-1) == seen[1]).mean()},
    callbacks=[MonitorCallback(monitor)],
)
trainer.train()
monitor.report()
