"""Whether a retention was measured with the class words and prompt templates that were asked for.

A model's zero-shot accuracy depends on both. Two versions of a model are comparable only where
both were the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from driftscope.data.prompts import PromptRules, expand_templates, prompt_rules
from driftscope.errors import ConfigError, shown
from driftscope.gate.limits import Limit
from driftscope.protocols import ACCURACIES, ZERO_SHOT
from driftscope.records.schema import StoredPrompts


@dataclass(frozen=True)
class AskedPrompts:
    """The class words and templates that a score must have been measured with.

    Attributes:
        rules: them, as `compare` takes them.
        has_templates: whether templates were asked for.
    """

    rules: PromptRules
    has_templates: bool

    @classmethod
    def of(cls, class_words: Path | None, templates: Sequence[str] | None) -> Self:
        """What is asked for.

        Raises:
            DataError: a file that cannot be read, or a template that is none.
        """
        return cls(prompt_rules(class_words, templates), bool(templates))

    def check_used(self, limits: Sequence[Limit]) -> None:
        """Refuses words and templates that nothing is judged by.

        Raises:
            ConfigError: no limit is on a zero-shot score.
        """
        keys = ("retention_pct", ACCURACIES[ZERO_SHOT])
        if not any(limit.gated.metric.key in keys for limit in limits):
            raise ConfigError(
                "class words and templates concern retention and zero-shot accuracy, and no limit "
                "was asked for on these; add --min-retention 90, or leave them out"
            )

    def check_fits(self, measured: Sequence[StoredPrompts]) -> None:
        """Refuses class words of other classes.

        Raises:
            DataError: the file names no class of any of these sets.
        """
        if told := [list(one.class_words) for one in measured if one.class_words]:
            self.rules.refuse_if_unused(told)

    def why_not(self, measured: StoredPrompts | None) -> str:
        """Why a score was not measured with them; "" where it was."""
        if measured is None or not measured.class_words:
            return "the report does not tell its class words and templates; compare again"
        for name, asked in self.rules.own_words(list(measured.class_words)).items():
            if measured.class_words[name] != asked:
                said = shown(measured.class_words[name])
                return f"the class {shown(name)} was measured as {said}, not as {shown(asked)}"
        asked_templates = expand_templates(self.rules.templates)
        if self.has_templates and sorted(asked_templates) != sorted(measured.templates):
            return (
                f"it was measured with {_of_templates(measured.templates)}, not with "
                f"{_of_templates(asked_templates)}"
            )
        return ""


def _of_templates(templates: Sequence[str]) -> str:
    first = shown(templates[0]) if templates else "none"
    return f"the prompt {first}" if len(templates) < 2 else f"{len(templates)} prompts ({first}, …)"
