"""Statistics of studies: arrays in, small frozen dataclasses out; no tables, no models."""

from driftscope.stats.bootstrap import (
    BootstrapInterval,
    bootstrap_over_cells,
    cell_weights,
    weighted_mean,
    weighted_spearman,
    with_gaps_of_sizes,
)
from driftscope.stats.correlation import (
    CorrelationTest,
    PartialCorrelation,
    correlation,
    partial_correlation,
    permutation_correlation,
    permutation_correlations,
)
from driftscope.stats.discrimination import Discrimination, roc_auc
from driftscope.stats.effects import EffectSize, cohens_d, cohens_d_z, hedges_factor, hedges_g
from driftscope.stats.frontier import hypervolume, non_dominated
from driftscope.stats.groups import (
    Equivalence,
    MeanTest,
    coefficient_of_variation,
    equivalence,
    paired_t,
    permutation_of_means,
    sign_flip,
    welch_t,
    wilcoxon_signed_rank,
)
from driftscope.stats.multiplicity import Adjusted, Family, adjust
from driftscope.stats.power import (
    Power,
    minimum_detectable_effect,
    num_seeds_needed,
    power_of_contrast,
)
from driftscope.stats.proportions import wilson_interval_pct

__all__ = [
    "Adjusted",
    "BootstrapInterval",
    "CorrelationTest",
    "Discrimination",
    "EffectSize",
    "Equivalence",
    "Family",
    "MeanTest",
    "PartialCorrelation",
    "Power",
    "adjust",
    "bootstrap_over_cells",
    "cell_weights",
    "coefficient_of_variation",
    "cohens_d",
    "cohens_d_z",
    "correlation",
    "equivalence",
    "hedges_factor",
    "hedges_g",
    "hypervolume",
    "minimum_detectable_effect",
    "non_dominated",
    "num_seeds_needed",
    "paired_t",
    "partial_correlation",
    "permutation_correlation",
    "permutation_correlations",
    "permutation_of_means",
    "power_of_contrast",
    "roc_auc",
    "sign_flip",
    "weighted_mean",
    "weighted_spearman",
    "welch_t",
    "wilcoxon_signed_rank",
    "wilson_interval_pct",
    "with_gaps_of_sizes",
]
