"""The old place of `driftscope.drift`, `driftscope.Reading` and `driftscope.Drift`."""

from driftscope.deprecation import moved

__getattr__ = moved(__name__, drift="driftscope", Reading="driftscope", Drift="driftscope")
