"""A plain PyTorch loop fine-tunes a CLIP, and the monitor says what becomes of its old ability."""

import torch
from torch import nn

import driftscope as ds

model = ds.load("mini")  # or your own, such as "openai/clip-vit-base-patch32"
data = ds.open_dataset("terrain", "train")
# pixels are a torch tensor: uint8, [image, 3, height, width], not normalised
images, labels = data.pixels(range(320), model.image_size), data.labels[:320]
val_images, val_labels = data.pixels(range(320, 520), model.image_size), data.labels[320:520]

clip, head = model.module, nn.Linear(model.embedding_dim, len(data.class_names))
clip.text_model.requires_grad_(False)
optimizer = torch.optim.AdamW([*clip.parameters(), *head.parameters()], lr=1e-3)

monitor = ds.Monitor("mini", "terrain", transfer="concepts100", transfer_images=300)
step = 0
for epoch in range(1, 4):
    clip.train()
    for batch in torch.randperm(len(images)).split(32):
        logits = head(model.image_embeddings(images[batch]))
        nn.functional.cross_entropy(logits, labels[batch]).backward()
        optimizer.step()
        optimizer.zero_grad()
        step += 1
    with torch.no_grad():
        hits = head(model.embed_images(val_images)).argmax(dim=1) == val_labels
    accuracy_pct = 100 * hits.float().mean().item()
    monitor.step(clip, step=step, epoch=epoch, val_accuracy_pct=accuracy_pct)
    if monitor.should_stop:
        break
monitor.close()
monitor.report()
