"""The old place of the conversion of open_clip's files."""

from driftscope.deprecation import moved

__getattr__ = moved(
    __name__,
    OPEN_CLIP_NAMES="driftscope.sources.open_clip",
    convert_open_clip="driftscope.sources.open_clip",
    load_open_clip="driftscope.sources.open_clip",
)
