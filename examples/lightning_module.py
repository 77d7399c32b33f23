"""Lightning fine-tunes a CLIP, and the monitor feeds its loggers (needs driftscope[lightning])."""

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
        self.log("accuracy", (self(batch[0]).argmax(dim=1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def loader(indices, shuffle=False):
    pixels = model.normalise(data.pixels(indices, model.image_size))
    return DataLoader(TensorDataset(pixels, data.labels[list(indices)]), 32, shuffle)


data = ds.open_dataset("terrain", "train")
model = ds.load("mini")  # or your own, such as "openai/clip-vit-base-patch32"; in eval mode
monitor = ds.Monitor("mini", "terrain", transfer="concepts100", transfer_images=300)
trainer = Trainer(max_epochs=3, callbacks=[MonitorCallback(monitor, accuracy_metric="accuracy")])
trainer.fit(Classifier(model.module.train(), 10), loader(range(320), True), loader(range(320, 520)))
monitor.report()
