"""A model in training: the live encoder, what classifies its embeddings, what is optimised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional

from driftscope.backbones.model import VisionLanguageModel
from driftscope.errors import ModelError

ENCODER = "encoder."
"""What the names of the model's own weights begin with, among all that is optimised."""
_FORMERLY = "clip."
"""The same in checkpoints that older versions wrote."""


@dataclass(frozen=True)
class AdaptedModel:
    """The live encoder with a linear classifier on its unnormalised projected embedding.

    Where `class_tokens` are given (the tokenised class prompts of a contrastive method) their
    embeddings by the text tower take the classifier's place, and `classifier` is None.
    """

    model: VisionLanguageModel
    classifier: nn.Linear | None
    class_tokens: Mapping[str, Tensor] | None = None

    def logits(self, pixels: UInt8[Tensor, "image 3 height width"]) -> Float[Tensor, "image class"]:
        """Class logits of one batch of images, through the live path."""
        return self.class_logits(self.model.image_embeddings(pixels))

    def class_logits(self, embeddings: Float[Tensor, "image dim"]) -> Float[Tensor, "image class"]:
        """Class logits of image embeddings as the live path gives them."""
        if self.classifier is not None:
            return self.classifier(embeddings)  # type: ignore[no-any-return]
        return self._cosine_logits(embeddings, self._class_directions())

    def loss_and_logits(
        self,
        embeddings: Float[Tensor, "image dim"],
        labels: Int64[Tensor, " image"],
        label_smoothing: float = 0.0,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "image class"]]:
        """The batch's mean training loss, and its class logits.

        Cross-entropy, or with class prompts the family's own contrastive loss of images and their
        prompts: symmetric cross-entropy, where as in FLYP another image of the same class counts
        as a negative; or the sigmoid loss, which asks of every pair by itself whether it fits.
        """
        if self.classifier is not None:
            logits = self.class_logits(embeddings)
            return functional.cross_entropy(logits, labels, label_smoothing=label_smoothing), logits
        directions = self._class_directions()
        pairs = self._cosine_logits(embeddings, directions[labels])
        if self.model.logit_bias is None:
            loss = _softmax_loss(pairs)
        else:
            loss = _sigmoid_loss(pairs, fits=labels[:, None] == labels)
        return loss, self._cosine_logits(embeddings, directions)

    def linear_classifier(self) -> nn.Linear:
        """A copy of the classifier; of class prompts, the linear map with the same choices."""
        if self.classifier is not None:
            weight, bias = self.classifier.weight.detach(), self.classifier.bias.detach()
        else:
            with torch.no_grad():
                weight = self.model.logit_scale * self._class_directions()
            bias = torch.zeros(len(weight), device=weight.device)
        classifier = nn.Linear(weight.shape[1], weight.shape[0])
        classifier.load_state_dict({"weight": weight, "bias": bias})
        return classifier

    def trainable(self) -> dict[str, nn.Parameter]:
        """Everything that is optimised, by a name that survives a save and a reload."""
        encoder = {
            f"{ENCODER}{name}": parameter
            for name, parameter in self.model.module.named_parameters()
            if parameter.requires_grad
        }
        if self.classifier is None:
            return encoder
        head = {f"classifier.{name}": tensor for name, tensor in self.classifier.named_parameters()}
        return encoder | head

    @property
    def encoder_is_frozen(self) -> bool:
        """Whether the classifier alone is optimised, so that the encoder stays the pretrained."""
        return all(name.startswith("classifier.") for name in self.trainable())

    def num_parameters(self) -> dict[str, int]:
        """Counts: trainable, and in total (both towers, adapter and classifier)."""
        everything = [
            parameter
            for name, parameter in self.model.module.named_parameters()
            if "original_module" not in name  # peft keeps the frozen twin of what it trains whole
        ]
        if self.classifier is not None:
            everything += self.classifier.parameters()
        return {
            "trainable": sum(parameter.numel() for parameter in self.trainable().values()),
            "total": sum(parameter.numel() for parameter in everything),
        }

    def train(self) -> None:
        """Puts encoder and classifier into training mode, but for the statistics of batch norms.

        Those are no parameters, so that nothing would keep what a training makes of them.
        """
        self.model.module.train()
        for module in self.model.module.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        if self.classifier is not None:
            self.classifier.train()

    def _class_directions(self) -> Float[Tensor, "class dim"]:
        model = self.model
        features = model.backbone.embed_texts(model.module, self.class_tokens or {})
        return functional.normalize(features, dim=-1)

    def _cosine_logits(self, images: Tensor, directions: Tensor) -> Tensor:
        backbone, plain = self.model.backbone, self.model.plain
        logits = backbone.logit_scale(plain) * functional.normalize(images, dim=-1) @ directions.T
        bias = backbone.logit_bias(plain)
        return logits if bias is None else logits + bias


def _softmax_loss(pairs: Float[Tensor, "image text"]) -> Float[Tensor, ""]:
    """CLIP's loss: every image finds its own text among all of the batch, and the reverse."""
    own = torch.arange(len(pairs), device=pairs.device)
    return (functional.cross_entropy(pairs, own) + functional.cross_entropy(pairs.T, own)) / 2


def _sigmoid_loss(
    pairs: Float[Tensor, "image text"], *, fits: Bool[Tensor, "image text"]
) -> Float[Tensor, ""]:
    """SigLIP's loss (2303.15343): of every pair whether it fits, summed over texts."""
    signs = torch.where(fits, 1.0, -1.0)
    return -functional.logsigmoid(signs * pairs).sum(dim=-1).mean()


def trainable_state(adapted: AdaptedModel) -> dict[str, Tensor]:
    """A copy of every optimised tensor: all that differs from the pretrained model."""
    return {name: tensor.detach().clone().cpu() for name, tensor in adapted.trainable().items()}


def restore_trainable(adapted: AdaptedModel, state: dict[str, Tensor]) -> None:
    """Puts a `trainable_state` back.

    Raises:
        ModelError: the state belongs to another method or model.
    """
    targets = adapted.trainable()
    state = {
        ENCODER + name.removeprefix(_FORMERLY) if name.startswith(_FORMERLY) else name: tensor
        for name, tensor in state.items()
    }
    if targets.keys() != state.keys():
        odd = sorted(targets.keys() ^ state.keys())[0]
        raise ModelError(f"the saved weights belong to another method or model: {odd} differs")
    with torch.no_grad():
        for name, parameter in targets.items():
            parameter.copy_(state[name])
