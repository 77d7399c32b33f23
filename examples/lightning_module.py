"""Lightning fine-tunes a CLIP, and the monitor feeds its loggers and can end the training."""

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

import driftscope as ds
from driftscope.integrations.lightning import MonitorCallback


class Classifier(LightningModule):
    def __init__(self, clip, num_classes):
        super().__init__()
        self.clip, self.head = clip, torch.nn.Linear(clip.config.projection_dim, num_classes)

    def forward(self, images):
        return self.head(self.clip.get_image_features(images).pooler_output)

    def training_step(self, batch, _):
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self.log("val_accuracy", (self(batch[0]).argmax(dim=1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def loader(split, count):
    images = ds.open_dataset("terrain", split)
    pixels = model.normalise(images.pixels(range(count), model.image_size))
    return DataLoader(TensorDataset(pixels, images.labels[:count]), 32, split == "train")


model = ds.load("mini")  # or your own, such as "openai/clip-vit-base-patch32"
monitor = ds.Monitor("mini", "terrain", transfer="concepts100", max_transfer_images=300)
watch = MonitorCallback(monitor, accuracy_metric="val_accuracy")
trainer = Trainer(max_epochs=3, callbacks=[watch])
trainer.fit(Classifier(model.clip.train(), 10), loader("train", 320), loader("test", 200))
print("Look at", monitor.report())
