"""Models of timm and open_clip, read by their own forward: PE-Core, EVA02, MobileCLIP 2, any ViT.

One pass of one image shows how the image tower is built: its blocks, the tokens before its patches,
whether the attention in its blocks is a softmax that can be told. So there is one backbone for all.
"""

from __future__ import annotations

import importlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn

from driftscope.backbones.base import Backbone, ImageTower
from driftscope.backbones.evaluating import evaluating
from driftscope.backbones.torch_attention import Attended, attention_seen
from driftscope.errors import CaptureError, told_as
from driftscope.files import write_whole
from driftscope.signals.attention import mean_rollout_row, rollout_row

_BLOCKS = ("blocks", "transformer.resblocks", "stages", "layers")
"""Where timm and open_clip keep the blocks of an image tower."""
_SINGLE_BLOCKS = "layer1", "layer2", "layer3", "layer4"
"""A ResNet's."""


@dataclass(frozen=True)
class Pooling:
    """How the tokens of a tower become its embedding.

    Attributes:
        by: `token`, `avg`, `probe`; another word where it is something else.
        num_prefix: tokens before the patches.
        includes_prefix: whether those are pooled, too.
        probe: the module whose attention pools by a learnt query.
    """

    by: str
    num_prefix: int
    includes_prefix: bool = False
    probe: nn.Module | None = None


class LibraryBackbone(Backbone):
    """What one pass of one image has shown of a tower. `LibraryModel` makes it."""

    classes: ClassVar[Mapping[str, str]] = {}
    towers: ClassVar[Mapping[str, str]] = {}
    has_attention_of_its_own = True
    pads_texts_to_the_full_length = True
    tower_name = ""
    positions_name = None
    adapter_targets: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("q_proj", "k_proj", "v_proj"), "attn.qkv"),
        **{"out_proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"},
    }

    def __init__(self, model: LibraryModel, pooling: Pooling, shape: _Shape) -> None:
        tower = next(name for name, one in model.named_modules() if one is model._tower[0])
        facts = {
            "family": model.library,
            "tower_name": model.tower_name,
            "blocks_name": f"{tower}.{model.blocks_name}",
            "final_norm_name": f"{tower}.norm",
            "idle_names": model.idle_names,
            "whole": None if model.texts is None else type(model).__name__,
        }
        self.__dict__.update(facts)
        self.pooling = pooling
        self.embedding_length = shape.embedding_length
        self.is_of_tokens = shape.is_of_tokens
        self.has_channels_last = shape.has_channels_last
        self.no_attention_because = shape.no_attention_because
        self.probe_prefix = shape.probe_prefix

    def num_prefix(self, config: Any) -> int:
        """As the tower says."""
        del config
        return self.pooling.num_prefix

    def pooled_row(
        self,
        query: Float[Tensor, "image head token dim"],
        key: Float[Tensor, "image head token dim"],
        scaling: float,
        num_prefix: int,
    ) -> Float[Tensor, "image head patch"]:
        """The CLS token's; of a tower that pools the mean of its tokens, their mean row."""
        if self.pooling.by == "token":
            return super().pooled_row(query, key, scaling, num_prefix)
        first = 0 if self.pooling.includes_prefix else num_prefix
        logits = query[:, :, first:].float() @ key[:, :, num_prefix:].float().transpose(-1, -2)
        return (logits * scaling).softmax(dim=-1).mean(dim=2)

    def rollout_row(
        self, product: Float[Tensor, "image token token"], num_prefix: int
    ) -> Float[Tensor, "image patch"]:
        """Of what pools the image."""
        if self.pooling.by == "token":
            return rollout_row(product, num_prefix)
        return mean_rollout_row(product, num_prefix)

    def block_state(self, tokens: Tensor) -> Float[Tensor, "image dim"]:
        """The CLS token where that is pooled; else the mean patch, or place of a map."""
        if not self.is_of_tokens:
            return tokens.mean(dim=(1, 2) if self.has_channels_last else (2, 3))
        if self.pooling.by == "token":
            return tokens[:, 0]
        return tokens[:, self.pooling.num_prefix :].mean(dim=1)

    def probe_attention(self, tower: nn.Module) -> nn.Module | None:
        """The tower's attention pool."""
        del tower
        return self.pooling.probe

    def embed_images(self, module: nn.Module, pixel_values: Tensor) -> Tensor:
        """What the library itself gives, of pixels in the numbers that it computes with."""
        values = pixel_values.to(_number_type(module))
        embeddings: Tensor = module.get_image_features(values)  # type: ignore[operator]
        return embeddings

    def embed_texts(self, module: Any, tokens: Mapping[str, Tensor]) -> Tensor:
        """Padded as the library's own tokenizer pads them."""
        embeddings: Tensor = module.get_text_features(**tokens)
        return embeddings

    def logit_scale(self, plain: Any) -> Tensor:
        """The library keeps its logarithm."""
        scale: Tensor = plain.texts.logit_scale.exp()
        return scale

    def logit_bias(self, plain: Any) -> Tensor | None:
        """Of models that are trained by the sigmoid loss."""
        bias: Tensor | None = plain.texts.logit_bias
        return bias

    def embedding_dim(self, plain: Any) -> int:
        """As one pass has shown."""
        del plain
        return self.embedding_length

    def has_text(self, config: Any) -> bool:
        """Whether there are two towers."""
        del config
        return self.whole is not None

    def text_length(self, config: Any) -> int:
        """As the text tower says."""
        return int(config.text_length)

    def vocabulary_size(self, config: Any) -> int:
        """As the text tower says."""
        return int(config.vocab_size)

    def is_position(self, name: str) -> bool:
        """As timm and open_clip call them, in whatever class of theirs."""
        return any(part in name for part in ("pos_embed", "positional_embedding"))

    def is_text_weight(self, name: str) -> bool:
        """All of a model of two towers that is not its image tower, and no scale of logits."""
        is_other = name.startswith(("logit_", f"{self.tower_name}."))
        return self.whole is not None and not is_other

    def block_of(self, name: str) -> int | None:
        """Also of a ResNet, whose blocks are counted from 1."""
        match = re.match(rf"{re.escape(self.blocks_name)}(\d)\.", name)
        return int(match.group(1)) - 1 if match else super().block_of(name)

    def image_facts(self, config: Any) -> dict[str, object]:
        """What is pooled, and the library's own name of what it built."""
        del config
        return {"what the image tower pools": self.pooling.by}

    def text_facts(self, config: Any) -> dict[str, object]:
        """What the text tower pools, and whether later words are seen by earlier ones."""
        return dict(getattr(config, "text_facts", {}))


@dataclass(frozen=True)
class _Shape:
    """What one pass of one image has shown."""

    embedding_length: int
    width: int
    num_tokens: int
    is_of_tokens: bool
    has_channels_last: bool
    no_attention_because: str
    probe_prefix: int


class LibraryModel(nn.Module):
    """A model of another library, with what driftscope asks of a model; nothing is copied.

    Attributes:
        library: whose it is.
        tower_name: where the image tower's weights are in this module.
        blocks_name: where the blocks are in the tower.
        idle_names: how the names of weights begin that no image goes through.
        texts: what has the logit scale; None in an image tower alone.
        config: its sizes, as transformers keeps them.
        backbone: how it is read.
    """

    library: str
    tower_name: str
    blocks_name: str
    idle_names: tuple[str, ...] = ()
    texts: Any = None
    config: Any
    backbone: LibraryBackbone

    def describe(self, tower: nn.Module, image_size: int, pooling: Pooling, **facts: Any) -> None:
        """Finds how the tower is built; to be called when all else is set.

        Raises:
            CaptureError: it has no blocks that are known, or does not run.
        """
        from transformers import PreTrainedConfig

        self._tower = (tower,)  # in a tuple: it is among the submodules by its own name already
        self.blocks_name, blocks = _blocks_of(tower)
        shape = self._shape(tower, blocks, image_size, pooling)
        num_patches = max(1, shape.num_tokens - pooling.num_prefix)
        self.config = PreTrainedConfig(
            image_size=image_size,
            patch_size=max(1, image_size // math.isqrt(num_patches)),
            hidden_size=shape.width,
            library_class=type(tower).__name__,
            pools=pooling.by,
            **facts,
        )
        self.config._attn_implementation = "sdpa"
        self.backbone = LibraryBackbone(self, pooling, shape)

    @property
    def name_or_path(self) -> str:
        """Where it was loaded from; nothing says so."""
        return ""

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """The library's image embeddings."""
        raise NotImplementedError

    def image_tower(self) -> ImageTower:
        """Its image tower."""
        return ImageTower(
            module=self._tower[0],
            encoder=self.get_submodule(self.tower_name),
            blocks=_blocks_of(self._tower[0])[1],
            num_prefix=self.backbone.pooling.num_prefix,
            config=self.config,
            backbone=self.backbone,
        )

    def _shape(
        self, tower: nn.Module, blocks: list[nn.Module], image_size: int, pooling: Pooling
    ) -> _Shape:
        image = torch.zeros(1, 3, image_size, image_size, dtype=_number_type(tower))
        image = image.to(next(tower.parameters()).device)
        outputs: list[Any] = []
        seen = {module: _Shown() for module in (*blocks, pooling.probe) if module is not None}
        attended = {module: Attended(shown) for module, shown in seen.items()}
        doing = f"the {self.library} model cannot be read: its own forward fails"
        with (
            evaluating(self),
            told_as(CaptureError, doing),
            _kept(blocks[-1], outputs),
            attention_seen(attended),
        ):
            embedding = self.get_image_features(image)
        if embedding.ndim != 2:
            sizes = "×".join(map(str, embedding.shape[1:]))
            raise CaptureError(
                f"the {self.library} model embeds an image as {sizes} numbers, and one row of them "
                "is what is compared"
            )
        state = outputs[-1][0] if isinstance(outputs[-1], tuple) else outputs[-1]
        is_of_tokens = state.ndim == 3
        last = getattr(tower, "output_fmt", "NCHW") == "NHWC"
        width = state.shape[-1] if is_of_tokens or last else state.shape[1]
        num_tokens = state.shape[1] if is_of_tokens else math.prod(state.shape[1:]) // width
        return _Shape(
            embedding_length=embedding.shape[-1],
            width=width,
            num_tokens=num_tokens,
            is_of_tokens=is_of_tokens,
            has_channels_last=last,
            no_attention_because=_why_no_attention(blocks, seen, attended, pooling, num_tokens)
            if is_of_tokens
            else "the blocks of the image tower give maps of places, and no tokens that are pooled",
            probe_prefix=_prefix_that_is_probed(seen, pooling, num_tokens),
        )


class TimmTower(LibraryModel):
    """An image tower of timm.

    Args:
        model: timm's.
        holder: transformers' TimmWrapperModel around it, if there is one.
    """

    library = "timm"
    tower_name = "timm_model"

    def __init__(self, model: Any, holder: nn.Module | None = None) -> None:
        super().__init__()
        self.timm_model = model
        self.holder = (holder,)
        self.idle_names = classifier_of(getattr(model, "pretrained_cfg", None))
        self.describe(model, _image_size(model), timm_pooling(model))

    def save_pretrained(self, folder: str) -> None:
        """As transformers writes it, or, without its holder, timm."""
        if self.holder[0] is not None:
            self.holder[0].save_pretrained(folder)  # type: ignore[operator]
            return
        timm: Any = importlib.import_module("timm.models._hub")
        timm.save_for_hf(self.timm_model, folder)

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """What goes into the classifier."""
        model: Any = self.timm_model
        features = model.forward_features(pixel_values)
        embeddings: Tensor = model.forward_head(features, pre_logits=True)
        return embeddings


class OpenClipModel(LibraryModel):
    """A model of open_clip, its parts under their own names.

    Args:
        model: open_clip's CLIP, CustomTextCLIP or CoCa, or the CLIP of OpenAI's own package.
        said: its `open_clip_config.json`, where that is known.
    """

    library = "open_clip"
    tower_name = "visual"

    def __init__(self, model: Any, said: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.held, self.said = (model,), said
        for part in ("_modules", "_parameters", "_buffers"):
            self.__dict__[part] = model.__dict__[part]
        self.texts = _LogitsOf(model)
        text = getattr(model, "text", model)
        pools = _pooling_of_texts(model, text)
        is_of_transformers = type(text).__name__ == "HFTextEncoder"  # it finds padding by itself
        by_itself = is_of_transformers or pools == "last"
        self.pads_with = None if by_itself else int(getattr(text, "pad_id", 0) or 0)
        tower = model.visual
        trunk = getattr(tower, "trunk", None)
        size = getattr(tower, "image_size", getattr(tower, "input_resolution", None))
        self.describe(
            tower if trunk is None else trunk,
            size[0] if isinstance(size, tuple | list) else int(size or _image_size(trunk)),
            _open_clip_pooling(tower) if trunk is None else _projected(timm_pooling(trunk), tower),
            text_length=77 if is_of_transformers else int(getattr(model, "context_length", 77)),
            vocab_size=int(getattr(model, "vocab_size", getattr(text, "vocab_size", 49408))),
            text_facts={
                "what the text tower pools": pools,
                "whether earlier words see later ones": _mask_of(text) is None,
            },
        )

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """What `encode_image` gives."""
        found = self.held[0].encode_image(pixel_values)
        embeddings: Tensor = found[0] if isinstance(found, tuple) else found
        return embeddings

    def save_pretrained(self, folder: str) -> None:
        """Its weights, and where it is known its configuration, as open_clip reads them."""
        state = {name: one.contiguous() for name, one in self.state_dict().items()}
        save_file(state, Path(folder) / "open_clip_model.safetensors")
        if self.said is not None:
            write_whole(Path(folder) / "open_clip_config.json", json.dumps(self.said).encode())

    def get_text_features(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **_others: Tensor
    ) -> Tensor:
        """What `encode_text` gives of texts that are padded as open_clip pads them."""
        if attention_mask is not None and self.pads_with is not None:
            input_ids = input_ids.masked_fill(attention_mask == 0, self.pads_with)
        embeddings: Tensor = self.held[0].encode_text(input_ids)
        return embeddings


def classifier_of(said: Mapping[str, Any] | None) -> tuple[str, ...]:
    """How the names of the weights of a classifier's head begin, by timm's pretrained_cfg.

    Where that does not tell, as timm's models usually call it.
    """
    classifier = (said or {}).get("classifier") or ("head", "fc", "classifier")
    names = (classifier,) if isinstance(classifier, str) else classifier
    return tuple(f"{TimmTower.tower_name}.{name}." for name in names)


def timm_pooling(model: Any) -> Pooling:
    """How a model of timm pools."""
    by = getattr(model, "global_pool", "")
    probe = getattr(model, "attn_pool", None)
    words = {"map": "probe"}
    if getattr(model, "dist_token", None) is not None:
        by = "the mean of two tokens"
    return Pooling(
        by=words.get(by, by) if isinstance(by, str) else "avg",
        num_prefix=int(getattr(model, "num_prefix_tokens", 0)),
        includes_prefix=bool(getattr(model, "pool_include_prefix", False)),
        probe=probe,
    )


def _projected(pooling: Pooling, tower: Any) -> Pooling:
    """The same, where open_clip pools behind timm's trunk instead."""
    pool = getattr(getattr(tower, "head", None), "pool", None)
    return pooling if pool is None else Pooling(type(pool).__name__, pooling.num_prefix)


def _open_clip_pooling(tower: Any) -> Pooling:
    by = {"tok": "token"}.get(getattr(tower, "pool_type", ""), getattr(tower, "pool_type", ""))
    pool = getattr(tower, "attn_pool", None)
    return Pooling(by if pool is None else type(pool).__name__, num_prefix=1)


def _mask_of(text: Any) -> Any:
    """The mask of a text tower, which OpenAI's package keeps in every block."""
    blocks = getattr(getattr(text, "transformer", None), "resblocks", None)
    in_block = None if blocks is None else getattr(blocks[0], "attn_mask", None)
    return getattr(text, "attn_mask", in_block)


def _pooling_of_texts(model: Any, text: Any) -> str:
    pooler = getattr(text, "pooler", None)
    if isinstance(pooler, nn.Module):
        return type(pooler).__name__
    return str(getattr(text, "pool_type", None) or getattr(model, "text_pool_type", "argmax"))


def _number_type(module: nn.Module) -> torch.dtype:
    """Of the convolution that pixels go into first, whatever the norms have."""
    weights = list(module.parameters())
    return next((one for one in weights if one.ndim == 4), weights[0]).dtype


def _image_size(model: Any) -> int:
    """The side of the images that a model of timm reads.

    Raises:
        CaptureError: they are no squares.
    """
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    size = size or (getattr(model, "pretrained_cfg", None) or {}).get("input_size", (3, 224, 224))
    height, width = tuple(size)[-2:]
    if height != width:
        raise CaptureError(f"the model of timm reads images of {height}×{width} pixels, no squares")
    return int(height)


class _LogitsOf:
    """The scale of logits and their bias, whatever stands in their place by now."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @property
    def logit_scale(self) -> Tensor:
        scale: Tensor = self._model.logit_scale
        return scale

    @property
    def logit_bias(self) -> Tensor | None:
        bias: Tensor | None = getattr(self._model, "logit_bias", None)
        return bias


@dataclass
class _Shown:
    """The shapes that an attention showed."""

    query: tuple[int, ...] = ()
    key: tuple[int, ...] = ()

    def __call__(self, query: Tensor, key: Tensor, _scaling: float) -> None:
        self.query, self.key = tuple(query.shape), tuple(key.shape)


def _why_no_attention(
    blocks: list[nn.Module],
    seen: Mapping[nn.Module, _Shown],
    attended: Mapping[nn.Module, Attended],
    pooling: Pooling,
    num_tokens: int,
) -> str:
    if pooling.by not in ("token", "avg", "probe"):
        return f"the image tower pools by {pooling.by!r}, which no one attention row stands for"
    side = math.isqrt(num_tokens - pooling.num_prefix)
    if side**2 != num_tokens - pooling.num_prefix:
        return "the patches of the image tower form no square grid"
    for number, block in enumerate(blocks, start=1):
        found, shown = attended[block], seen[block]
        if found.calls != 1 or found.oddity:
            what = found.oddity or f"computes {found.calls or 'no'} attentions that can be told"
            return f"block {number} of the image tower {what}"
        if (shown.query[0], shown.query[2], shown.key[2]) != (1, num_tokens, num_tokens):
            return f"block {number} of the image tower attends to parts of the image alone"
    if pooling.probe is not None:
        found, shown = attended[pooling.probe], seen[pooling.probe]
        if found.calls != 1 or found.oddity or shown.query[2] != 1:
            return "the attention pool of the image tower has no one row"
    return ""


def _prefix_that_is_probed(
    seen: Mapping[nn.Module, _Shown], pooling: Pooling, num_tokens: int
) -> int:
    """How many of the tokens before the patches the attention pool sees."""
    if pooling.probe is None or not (keys := seen[pooling.probe].key):
        return 0
    return keys[2] - (num_tokens - pooling.num_prefix)


def _blocks_of(tower: nn.Module) -> tuple[str, list[nn.Module]]:
    parts = dict(tower.named_modules())
    for name in _BLOCKS:
        if isinstance(found := parts.get(name), nn.Sequential | nn.ModuleList) and len(found):
            return name, list(found)
    single = [parts[name] for name in _SINGLE_BLOCKS if name in parts]
    if not single:
        raise CaptureError(
            f"{type(tower).__name__} has no blocks that are known ({', '.join(_BLOCKS)})"
        )
    return "layer", single


@contextmanager
def _kept(module: nn.Module, outputs: list[Any]) -> Iterator[None]:
    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        outputs.append(output)

    hook = module.register_forward_hook(keep)
    try:
        yield
    finally:
        hook.remove()
