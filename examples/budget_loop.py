"""A plain PyTorch loop fine-tunes a CLIP and keeps 90 % of its zero-shot ability."""

import torch
from torch import nn

import driftscope as ds

model = ds.load("mini")  # or your own, such as "openai/clip-vit-base-patch32"
data = ds.open_dataset("terrain", "train")
images, labels = data.pixels(range(160), model.image_size), data.labels[:160]

clip, head = model.module, nn.Linear(model.embedding_dim, len(data.class_names))
embeddings, fitting = model.embed_images(images), torch.optim.Adam(head.parameters(), lr=1e-2)
for _ in range(100):  # an untrained head would damage the encoder in its first steps
    nn.functional.cross_entropy(head(embeddings), labels).backward()
    fitting.step()
    fitting.zero_grad()

clip.text_model.requires_grad_(False)  # first say what is trained, then make the budget
budget = ds.Budget("mini", clip, pool="concepts100", retention_pct=90, classifier=head)
optimizer = torch.optim.AdamW([*clip.parameters(), *head.parameters()], lr=1e-3)
step = 0
for _ in range(2):  # epochs
    clip.train()
    for batch in torch.randperm(len(images)).split(32):
        logits = head(model.image_embeddings(images[batch]))
        nn.functional.cross_entropy(logits, labels[batch]).backward()
        optimizer.step()
        optimizer.zero_grad()
        step += 1
    look = budget.step(step=step)
    print(f"step {step}: {look.found.retention_pct:.1f} %, now {look.kept.retention_pct:.1f} %")
clip.save_pretrained("tuned")
