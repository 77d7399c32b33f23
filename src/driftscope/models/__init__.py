"""The old package of models, which is now `backbones` and `sources`; its names go on working."""

from driftscope import sources
from driftscope.deprecation import moved

__file__ = sources.__file__  # beside which the embedded models lie
__getattr__ = moved(
    __name__,
    VisionLanguageModel="driftscope",
    load="driftscope.sources",
    default_device="driftscope.sources",
    usable_device="driftscope.sources",
    EMBEDDED="driftscope.sources.embedded",
    MINI="driftscope.sources.embedded",
)
