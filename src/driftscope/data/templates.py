"""Named sets of prompt templates; `{}` is where the class name goes.

`imagenet80` are the 80 that CLIP's authors publish for ImageNet (Radford et al. 2021, "Prompt
Engineering for ImageNet"); they are plain facts of that evaluation and written here as such.
"""

from __future__ import annotations

_BOTH_ARTICLES = (
    "a bad photo of {}",
    "a sculpture of {}",
    "a low resolution photo of {}",
    "a rendering of {}",
    "graffiti of {}",
    "a cropped photo of {}",
    "a tattoo of {}",
    "a bright photo of {}",
    "a dark photo of {}",
    "a drawing of {}",
    "a close-up photo of {}",
    "a black and white photo of {}",
    "a painting of {}",
    "a pixelated photo of {}",
    "a jpeg corrupted photo of {}",
    "a blurry photo of {}",
    "a photo of {}",
    "a good photo of {}",
    "a doodle of {}",
    "a sketch of {}",
    "a rendition of {}",
    "art of {}",
    "itap of {}",
)
"""Published once with "a" and once with "the" before the name."""

_BOTH_ADJECTIVES = ("hard to see", "clean", "dirty", "cool", "large", "nice", "weird", "small")
"""Published as "a photo of a … {}" and "a photo of the … {}"."""

_BOTH_KINDS = ("embroidered", "plastic", "origami", "toy", "cartoon", "plushie")
"""Published as "a … {}" and "the … {}"."""

_ALONE = (
    "a photo of many {}.",
    "a photo of my {}.",
    "a photo of one {}.",
    "itap of my {}.",
    "a {} in a video game.",
    "the {} in a video game.",
)

_ARTICLES = ("a", "the")

IMAGENET_80 = (
    *(f"{phrase.format(f'{article} {{}}')}." for phrase in _BOTH_ARTICLES for article in _ARTICLES),
    *(f"a photo of {article} {word} {{}}." for word in _BOTH_ADJECTIVES for article in _ARTICLES),
    *(f"{article} {kind} {{}}." for kind in _BOTH_KINDS for article in _ARTICLES),
    *_ALONE,
)

SATELLITE = (
    "a centered satellite photo of {}.",
    "a centered satellite photo of a {}.",
    "a centered satellite photo of the {}.",
)
"""What CLIP's authors publish for EuroSAT."""

PETS = ("a photo of a {}, a type of pet.",)
"""What CLIP's authors publish for Oxford-IIIT Pets."""

_LOOKS = ("blurry ", "black and white ", "low contrast ", "high contrast ", "bad ", "good ")

CIFAR = tuple(
    f"a {phrase}."
    for article in _ARTICLES
    for phrase in (
        *(
            f"{look}photo of {article} {{}}"
            for look in ("", *_LOOKS)
        ),
        *(f"photo of {article} {size} {{}}" for size in ("small", "big")),
    )
)  # fmt: skip
"""What CLIP's authors publish for CIFAR-10 and CIFAR-100."""

_PICTURES = ("photo", "painting", "sculpture", "sketch", "tattoo", "rendition", "drawing", "doodle")
_MADE_OF = ("plastic", "toy", "embroidered", "cartoon", "plushie", "origami")

CALTECH_101 = tuple(
    f"{phrase}."
    for article in _ARTICLES
    for phrase in (
        *(f"a {picture} of {article} {{}}" for picture in _PICTURES),
        f"art of {article} {{}}",
        f"graffiti of {article} {{}}",
        *(f"{article} {kind} {{}}" for kind in _MADE_OF),
        f"{article} {{}} in a video game",
    )
)
"""What CLIP's authors publish for Caltech-101."""

TEMPLATE_SETS: dict[str, tuple[str, ...]] = {
    "photo": ("a photo of a {}",),
    "imagenet80": IMAGENET_80,
    "satellite": SATELLITE,
    "pets": PETS,
    "cifar": CIFAR,
    "caltech101": CALTECH_101,
}
