"""What would stop a study's runs on this machine, found before the first one starts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from driftscope.adapt import adapt
from driftscope.config import RunSpec
from driftscope.data import is_here
from driftscope.data.prompts import PromptRules
from driftscope.errors import DriftscopeError
from driftscope.prepared_run import Inputs, open_inputs, shared_part
from driftscope.sources import is_on_hub_alone


@dataclass(frozen=True)
class Refusal:
    """A sentence that runs would end with, and those runs."""

    sentence: str
    specs: tuple[RunSpec, ...]


@dataclass(frozen=True)
class Outlook:
    """What was found, and the models and datasets that only their download can tell of."""

    refusals: tuple[Refusal, ...]
    unseen: tuple[str, ...]


def outlook(specs: Iterable[RunSpec]) -> Outlook:
    """Opens what the runs would open, each thing once, and sets up each of their methods.

    No image goes through a model. Models and datasets named by their id on the hub are not fetched
    for this: runs that need them are left out, and they are named as unseen. (An adapter's base and
    an open_clip tag are what such a run would fetch first, and are fetched here, too.)
    """
    by_inputs: defaultdict[RunSpec, list[RunSpec]] = defaultdict(list)
    unseen: dict[str, None] = {}
    stopped: defaultdict[str, list[RunSpec]] = defaultdict(list)
    for spec in specs:
        try:
            elsewhere = _on_hub_alone(spec)
        except DriftscopeError as error:
            stopped[str(error)].append(spec)
            continue
        unseen |= dict.fromkeys(elsewhere)
        if not elsewhere:
            by_inputs[shared_part(spec)].append(spec)
    for shared, alike in by_inputs.items():
        for sentence, those in _stopped(shared, alike):
            stopped[sentence] += those
    refusals = tuple(Refusal(sentence, tuple(those)) for sentence, those in stopped.items())
    return Outlook(refusals, tuple(unseen))


def _on_hub_alone(spec: RunSpec) -> list[str]:
    """The models and datasets of a run that may be on the hub and are not on this disk.

    Raises:
        DataError: a dataset can be in neither place.
    """
    datasets = (spec.dataset, *spec.transfer, *spec.retrieval, *([spec.pool] if spec.pool else []))
    model = [spec.model] if is_on_hub_alone(spec.model) else []
    return model + [name for name in datasets if not is_here(name)]


def _stopped(shared: RunSpec, alike: Sequence[RunSpec]) -> Iterator[tuple[str, list[RunSpec]]]:
    try:
        inputs = open_inputs(shared, "cpu")
    except DriftscopeError as error:
        yield str(error), list(alike)
        return
    by_method: defaultdict[object, list[RunSpec]] = defaultdict(list)
    for spec in alike:
        by_method[spec.method].append(spec)
    for those in by_method.values():
        try:
            _set_up(those[0], inputs)
        except DriftscopeError as error:
            yield str(error), those


def _set_up(spec: RunSpec, inputs: Inputs) -> None:
    rules = PromptRules(spec.templates, spec.class_words)
    names = inputs.class_names
    adapt(inputs.pretrained, spec.method, len(names), spec.seed, class_names=names, rules=rules)
