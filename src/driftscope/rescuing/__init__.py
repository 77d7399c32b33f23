"""From knowing the damage to undoing it: strengths of a fine-tuning that keep a retention budget.

Between the pretrained and the adapted model lie models that keep more of the one and of the other
(`blending.py`). A way gives a path of strengths from 0 to 1. The rescued model is the best point of
it whose estimated retention keeps the budget with the lower end of its interval. The estimate needs
no label; where the target has labels a classifier is fitted anew and its accuracy is measured.
"""

from driftscope.config import Way
from driftscope.records import RESCUE_FILE
from driftscope.rescuing.attribution import WHERE_FILE, Attribution, GroupDamage, where
from driftscope.rescuing.finding import rescue
from driftscope.rescuing.merging import MERGE_FILE, RECIPES, Merge, merge
from driftscope.rescuing.points import USUAL, WAYS, Point
from driftscope.rescuing.result import Rescue
from driftscope.rescuing.target import Accuracy

__all__ = [
    "MERGE_FILE",
    "RECIPES",
    "RESCUE_FILE",
    "USUAL",
    "WAYS",
    "WHERE_FILE",
    "Accuracy",
    "Attribution",
    "GroupDamage",
    "Merge",
    "Point",
    "Rescue",
    "Way",
    "merge",
    "rescue",
    "where",
]
