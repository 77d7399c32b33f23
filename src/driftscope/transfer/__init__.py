"""What ability is left: classification, retrieval, and the target task under corruption.

Classes are told by their texts (zero-shot), or from image features alone (`features`). Texts are
embedded once, by the pretrained model's text tower; images go through the live, adapter-aware
encoder of whichever model is scored.
"""

from driftscope.transfer.classification import (
    TransferSet,
    class_embeddings,
    transfer_names,
    transfer_set,
    zero_shot,
)
from driftscope.transfer.features import feature_sets, labelled_sets
from driftscope.transfer.retrieval import (
    RetrievalScore,
    RetrievalSet,
    retrieval_score,
    retrieval_set,
)
from driftscope.transfer.robustness import CorruptedTest, corrupted_tests
from driftscope.transfer.scores import (
    BESIDE_RETENTION,
    Outcome,
    ZeroShotScore,
    retention_pct,
    score,
)

__all__ = [
    "BESIDE_RETENTION",
    "CorruptedTest",
    "Outcome",
    "RetrievalScore",
    "RetrievalSet",
    "TransferSet",
    "ZeroShotScore",
    "class_embeddings",
    "corrupted_tests",
    "feature_sets",
    "labelled_sets",
    "retention_pct",
    "retrieval_score",
    "retrieval_set",
    "score",
    "transfer_names",
    "transfer_set",
    "zero_shot",
]
