"""The old place of `driftscope.read`."""

from driftscope.deprecation import moved

__getattr__ = moved(__name__, read="driftscope")
