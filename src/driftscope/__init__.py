"""driftscope: what fine-tuning does to a vision-language model, measured.

The public names load on first use, so that `import driftscope` is quick and imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Any

_HOME = {
    "load": "driftscope.sources",
    "VisionLanguageModel": "driftscope.backbones.model",
    "open_dataset": "driftscope.data",
    "read": "driftscope.reading_pass",
    "drift": "driftscope.reading",
    "Reading": "driftscope.reading",
    "Drift": "driftscope.reading",
    "compare": "driftscope.comparison",
    "Comparison": "driftscope.comparison",
    "estimate_retention": "driftscope.comparison",
    "Estimate": "driftscope.estimate",
    "Budget": "driftscope.budget_for_loops",
    "blend": "driftscope.blending",
    "rescue": "driftscope.rescuing",
    "Rescue": "driftscope.rescuing",
    "where": "driftscope.rescuing",
    "Attribution": "driftscope.rescuing",
    "merge": "driftscope.rescuing",
    "Merge": "driftscope.rescuing",
    "Monitor": "driftscope.monitor",
    "Observation": "driftscope.monitor",
    "Alert": "driftscope.monitor",
    "Thresholds": "driftscope.monitor",
    "Selection": "driftscope.monitor",
    "RunSpec": "driftscope.config",
    "StudySpec": "driftscope.config",
    "load_run_spec": "driftscope.config",
    "load_study_spec": "driftscope.config",
    "run_one": "driftscope.run",
    "Study": "driftscope.opened_study",
    "load_run": "driftscope.records",
    "load_runs": "driftscope.records",
    "runs_table": "driftscope.records",
    "history_table": "driftscope.records",
    "layers_table": "driftscope.records",
    "answer": "driftscope.analysis",
    "DriftscopeError": "driftscope.errors",
}
"""Public name -> the module it lives in."""

__version__ = version("driftscope")
__all__ = [*sorted(_HOME), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'driftscope' has no attribute {name!r}")
    module = import_module(_HOME[name])
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return __all__
