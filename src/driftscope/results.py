"""The old place of `driftscope.Study`."""

from driftscope.deprecation import moved

__getattr__ = moved(__name__, Study="driftscope")
