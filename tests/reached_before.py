"""What a user could reach at commit 1bde668; `test_nothing_lost` asks for each of it."""

# Each text is a list of words.

COMMANDS: dict[str, tuple[str, int]] = {
    "gate": (
        """
    --best --confident --json --max-embedding-drift --max-entropy-change --max-erf95-change
    --max-gini-change --max-head-diversity-change --max-late-entropy-change --max-logit-change
    --max-text-kl --max-weight-drift --min-cka --min-cka-debiased --min-retention
    --min-test-accuracy --min-text-agreement --min-val-accuracy --min-zero-shot
""",
        1,
    ),
    "watch": ("", 1),
    "demo": ("--fast --out --workers", 0),
    "run": ("--device --out", 1),
    "compare": (
        """
    --device --images --intruders --json --maps --max-images --out --skip-bad-images --transfer
""",
        2,
    ),
    "import": ("--out --pretrained-zero-shot-pct", 1),
    "report": ("--format --out", 1),
    "export": ("--out", 1),
    "study plan": ("--calibrate --json --only --out --workers", 1),
    "study run": (
        """
    --device --only --out --ray --retry-failed --runs-per-device --threads --workers
""",
        1,
    ),
    "study status": ("--json --watch", 1),
    "study export": ("--format --out", 1),
    "study analyse": ("--json --question", 1),
    "study report": ("--format --out", 1),
    "cache list": ("", 0),
    "cache clear": ("", 0),
    "": ("--debug --version", 0),
}

PUBLIC: str = """
    Alert Comparison Drift DriftscopeError Monitor Observation Reading RunSpec Selection Study
    StudySpec Thresholds VisionLanguageModel compare drift history_table layers_table load
    load_run load_run_spec load_runs load_study_spec open_dataset read run_one runs_table
    __version__
"""

PLACES = [
    "models.load",
    "models.VisionLanguageModel",
    "probe.read",
    "readings.Drift",
    "readings.Reading",
    "readings.drift",
    "results.Study",
]
"""What docs/api.md told to import from places that have moved."""

DOCUMENTED: str = """
    data.open_dataset data.ImageSet comparison.compare comparison.Comparison monitor.Monitor
    monitor.Observation monitor.Alert monitor.Thresholds monitor.Selection
    integrations.hf_trainer.MonitorCallback integrations.lightning.MonitorCallback config.RunSpec
    config.StudySpec config.load_run_spec config.load_study_spec run.run_one records.load_run
    records.load_runs records.runs_table records.history_table records.layers_table analysis.answer
    errors.DriftscopeError
"""
"""What docs/api.md told to import from where it still is."""

MEMBERS: dict[str, str] = {
    "Alert": "kind sentence step",
    "Comparison": """
    adapted drift images intruder_dimensions_per_layer num_images overlay pretrained
    reading_adapted reading_pretrained scalars skipped_images stability to_dict transfer
""",
    "Drift": """
    cka cka_debiased cka_debiased_per_block cka_per_block delta_entropy_pct
    delta_entropy_pct_per_layer delta_erf95_pct delta_erf95_pct_per_layer delta_gini_pct
    delta_gini_pct_per_layer delta_head_diversity_pct delta_head_diversity_pct_per_layer
    delta_late_entropy_pct delta_patch_to_patch_entropy_pct
    delta_patch_to_patch_entropy_pct_per_layer delta_rollout_entropy_pct delta_rollout_erf95_pct
    delta_rollout_gini_pct embedding_drift feature_distance from_dict num_images
    random_text_logit_change scalars text_kl_nats text_top1_agreement_pct to_dict weight_drift
    weight_drift_per_layer
""",
    "Monitor": """
    alerts best best_folder close cost_seconds cost_share_pct every fingerprint history is_due
    load_state_dict observe report should_stop start state_dict step stop_reason
""",
    "Observation": """
    alerts drift epoch from_event levels scalars seconds step summary to_event transfer
    val_accuracy_pct
""",
    "Reading": """
    cls_activations embeddings entropy erf95 from_dict from_images gini head_diversity
    head_diversity_of_mean images_fingerprint mean num_images num_layers num_patches
    patch_to_patch_entropy_bits per_image per_layer rollout_entropy_bits rollout_erf95
    rollout_gini shown_rows subset subset_coefficient_of_variation to_dict
""",
    "RunSpec": """
    balanced batch_size class_words clip_norm compile corruption_severity corruptions data_seed
    dataset decay_norms_and_biases epochs horizontal_flip label_smoothing learning_rate maps
    method micro_batches model precision probe_at probe_images protocol regularizers retrieval
    seed templates test_images train_images transfer transfer_images val_images warmup_fraction
    weight_decay
""",
    "Selection": "best by can_be_best is_patience_lost patience within_points",
    "Study": "classes export history layers model reading records runs tables",
    "StudySpec": "axes base exclude extra name overrides title",
    "Thresholds": """
    adapter_inactive diverged drift_per_accuracy_point late_contraction_pct least_drift_rise
    max_embedding_drift min_retention_pct no_attention probe_in_training unchanged unreadable
""",
    "VisionLanguageModel": """
    base_fingerprint clip device embed_images embed_texts embedding_dim has_own_pixels
    image_embeddings image_size is_adapter logit_scale mean normalise plain_clip source std to
    tokenised tokenizer
""",
}

KEYWORDS: dict[str, str] = {
    "Alert": "kind sentence step",
    "Comparison": """
    pretrained adapted images num_images skipped_images reading_pretrained reading_adapted drift
    stability intruder_dimensions_per_layer transfer overlay
""",
    "Drift": """
    num_images delta_entropy_pct delta_erf95_pct delta_gini_pct delta_head_diversity_pct
    delta_entropy_pct_per_layer delta_erf95_pct_per_layer delta_gini_pct_per_layer
    delta_head_diversity_pct_per_layer cka cka_per_block cka_debiased cka_debiased_per_block
    embedding_drift feature_distance delta_rollout_entropy_pct delta_rollout_erf95_pct
    delta_rollout_gini_pct delta_patch_to_patch_entropy_pct
    delta_patch_to_patch_entropy_pct_per_layer delta_late_entropy_pct weight_drift
    weight_drift_per_layer text_kl_nats text_top1_agreement_pct random_text_logit_change
""",
    "Monitor": """
    pretrained probe_images transfer vocabulary every out train_images alerts on_alert selection
    keep_best model_path max_probe_images max_transfer_images maps echo
""",
    "Observation": "step epoch val_accuracy_pct drift levels transfer alerts seconds",
    "Reading": """
    num_images num_patches images_fingerprint entropy erf95 gini head_diversity
    head_diversity_of_mean rollout_entropy_bits rollout_erf95 rollout_gini
    patch_to_patch_entropy_bits cls_activations embeddings shown_rows per_image
""",
    "RunSpec": """
    model dataset method learning_rate seed data_seed protocol epochs batch_size weight_decay
    warmup_fraction clip_norm horizontal_flip decay_norms_and_biases label_smoothing
    micro_batches precision compile regularizers probe_at maps train_images val_images
    probe_images test_images transfer transfer_images retrieval templates class_words balanced
    corruptions corruption_severity
""",
    "Selection": "within_points by patience",
    "Study": "folder",
    "StudySpec": "name title base axes overrides extra exclude",
    "Thresholds": """
    drift_per_accuracy_point least_drift_rise late_contraction_pct min_retention_pct
    max_embedding_drift adapter_inactive unchanged no_attention unreadable diverged
    probe_in_training
""",
    "VisionLanguageModel": """
    clip tokenizer image_size mean std source base_fingerprint has_own_pixels
""",
    "compare": """
    pretrained adapted images transfer max_images transfer_images maps intruders skip_bad_images
    device
""",
    "drift": "reading reference weights text",
    "history_table": "records",
    "layers_table": "records",
    "load": "source device",
    "load_run": "folder",
    "load_run_spec": "path",
    "load_runs": "study_folder",
    "load_study_spec": "study",
    "open_dataset": "source split",
    "read": "model pixels batch_size maps shown mean std",
    "run_one": "spec folder device on_event on_step",
    "runs_table": "records",
    "hf_trainer.MonitorCallback": "monitor trainer accuracy_metric accuracy_unit per_layer",
    "lightning.MonitorCallback": "monitor accuracy_metric accuracy_unit per_layer",
}

STUDY_FILES: str = """
    export/classes.csv export/classes.json export/classes.parquet export/history.csv
    export/history.json export/history.parquet export/layers.csv export/layers.json
    export/layers.parquet export/runs.csv export/runs.json export/runs.parquet
    figures/attention_terrain_mini_leakfree_concepts100.pdf
    figures/attention_terrain_mini_leakfree_concepts100.png
    figures/attention_terrain_mini_leakfree_concepts100.svg
    figures/dose_response_terrain_mini_leakfree_concepts100.pdf
    figures/dose_response_terrain_mini_leakfree_concepts100.png
    figures/dose_response_terrain_mini_leakfree_concepts100.svg figures/frontier_terrain.pdf
    figures/frontier_terrain.png figures/frontier_terrain.svg
    figures/head_entropy_terrain_mini_leakfree_concepts100.pdf
    figures/head_entropy_terrain_mini_leakfree_concepts100.png
    figures/head_entropy_terrain_mini_leakfree_concepts100.svg
    figures/layer_entropy_terrain_mini_leakfree_concepts100.pdf
    figures/layer_entropy_terrain_mini_leakfree_concepts100.png
    figures/layer_entropy_terrain_mini_leakfree_concepts100.svg
    figures/learning_rate_terrain_mini_leakfree_concepts100.pdf
    figures/learning_rate_terrain_mini_leakfree_concepts100.png
    figures/learning_rate_terrain_mini_leakfree_concepts100.svg figures/predictors.pdf
    figures/predictors.png figures/predictors.svg
    figures/retention_by_class_terrain_mini_leakfree_concepts100.pdf
    figures/retention_by_class_terrain_mini_leakfree_concepts100.png
    figures/retention_by_class_terrain_mini_leakfree_concepts100.svg
    figures/trajectories_terrain_mini_leakfree_concepts100.pdf
    figures/trajectories_terrain_mini_leakfree_concepts100.png
    figures/trajectories_terrain_mini_leakfree_concepts100.svg report.html study.json
    tables/cells_terrain_mini_leakfree_concepts100.csv
    tables/cells_terrain_mini_leakfree_concepts100.md
    tables/cells_terrain_mini_leakfree_concepts100.tex tables/cka_entropy.csv
    tables/cka_entropy.md tables/cka_entropy.tex
    tables/classes_terrain_mini_leakfree_concepts100.csv
    tables/classes_terrain_mini_leakfree_concepts100.md
    tables/classes_terrain_mini_leakfree_concepts100.tex tables/corrected_inference.csv
    tables/corrected_inference.md tables/corrected_inference.tex tables/dose_response.csv
    tables/dose_response.md tables/dose_response.tex tables/frontier.csv tables/frontier.md
    tables/frontier.tex tables/frontier_in_full.csv tables/frontier_in_full.md
    tables/frontier_in_full.tex tables/grid_means.csv tables/grid_means.md tables/grid_means.tex
    tables/layer_profile.csv tables/layer_profile.md tables/layer_profile.tex
    tables/layer_profile_cka_entropy.csv tables/layer_profile_cka_entropy.md
    tables/layer_profile_cka_entropy.tex tables/layer_profile_profile.csv
    tables/layer_profile_profile.md tables/layer_profile_profile.tex
    tables/layers_terrain_mini_leakfree_concepts100.csv
    tables/layers_terrain_mini_leakfree_concepts100.md
    tables/layers_terrain_mini_leakfree_concepts100.tex tables/method_contrast.csv
    tables/method_contrast.md tables/method_contrast.tex tables/missing_tables.csv
    tables/missing_tables.md tables/missing_tables.tex tables/predictors.csv
    tables/predictors.md tables/predictors.tex tables/predictors_auc.csv
    tables/predictors_auc.md tables/predictors_auc.tex tables/predictors_in_full.csv
    tables/predictors_in_full.md tables/predictors_in_full.tex tables/runs.csv tables/runs.md
    tables/runs.tex tables/seed_contrasts.csv tables/seed_contrasts.md tables/seed_contrasts.tex
    tables/seed_contrasts_in_full.csv tables/seed_contrasts_in_full.md
    tables/seed_contrasts_in_full.tex tables/selection.csv tables/selection.md
    tables/selection.tex tables/selection_in_full.csv tables/selection_in_full.md
    tables/selection_in_full.tex tables/stability.csv tables/stability.md tables/stability.tex
    tables/stability_seeds.csv tables/stability_seeds.md tables/stability_seeds.tex
"""

SIDE_BY_SIDE_FILES: str = """
    figures/cka_terrain_mini_leakfree_concepts100.pdf
    figures/cka_terrain_mini_leakfree_concepts100.png
    figures/cka_terrain_mini_leakfree_concepts100.svg
    figures/delta_entropy_pct_terrain_mini_leakfree_concepts100.pdf
    figures/delta_entropy_pct_terrain_mini_leakfree_concepts100.png
    figures/delta_entropy_pct_terrain_mini_leakfree_concepts100.svg
    figures/embedding_drift_terrain_mini_leakfree_concepts100.pdf
    figures/embedding_drift_terrain_mini_leakfree_concepts100.png
    figures/embedding_drift_terrain_mini_leakfree_concepts100.svg
    figures/retention_pct_terrain_mini_leakfree_concepts100.pdf
    figures/retention_pct_terrain_mini_leakfree_concepts100.png
    figures/retention_pct_terrain_mini_leakfree_concepts100.svg
    figures/test_accuracy_pct_terrain_mini_leakfree_concepts100.pdf
    figures/test_accuracy_pct_terrain_mini_leakfree_concepts100.png
    figures/test_accuracy_pct_terrain_mini_leakfree_concepts100.svg
    figures/weight_drift_terrain_mini_leakfree_concepts100.pdf
    figures/weight_drift_terrain_mini_leakfree_concepts100.png
    figures/weight_drift_terrain_mini_leakfree_concepts100.svg report.html
    tables/cells_terrain_mini_leakfree_concepts100.csv
    tables/cells_terrain_mini_leakfree_concepts100.md
    tables/cells_terrain_mini_leakfree_concepts100.tex tables/difference.csv
    tables/difference.md tables/difference.tex tables/specifications.csv
    tables/specifications.md tables/specifications.tex tables/studies.csv tables/studies.md
    tables/studies.tex
"""

EXPORTED: dict[str, str] = {
    "classes": """
    run_id dataset method learning_rate seed class num_images pretrained_pct adapted_pct
    retention_pct
""",
    "history": """
    run_id dataset method learning_rate seed kind epoch step train_loss train_accuracy_pct
    penalty val_accuracy_pct delta_entropy_pct delta_erf95_pct delta_gini_pct
    delta_head_diversity_pct cka cka_debiased embedding_drift weight_drift
    delta_late_entropy_pct delta_rollout_entropy_pct delta_rollout_erf95_pct
    delta_rollout_gini_pct delta_patch_to_patch_entropy_pct feature_distance text_kl_nats
    text_top1_agreement_pct random_text_logit_change num_images zero_shot_pct retention_pct
""",
    "layers": """
    run_id dataset method learning_rate seed layer head entropy_nats erf95 gini
    pretrained_entropy_nats pretrained_erf95 pretrained_gini cka cka_debiased
""",
    "runs": """
    run_id dataset method learning_rate seed model method_kind regularizer data_seed protocol
    epochs batch_size weight_decay options status origin num_runs selected_epoch train_loss
    val_accuracy_pct test_accuracy_pct test_num_images transfer pretrained_zero_shot_pct
    zero_shot_pct zero_shot_num_images retention_pct delta_entropy_pct delta_erf95_pct
    delta_gini_pct delta_head_diversity_pct cka cka_debiased embedding_drift weight_drift
    rollout_entropy_bits rollout_erf95 rollout_gini patch_to_patch_entropy_bits
    pretrained_rollout_entropy_bits pretrained_rollout_erf95 pretrained_rollout_gini
    pretrained_patch_to_patch_entropy_bits trainable_parameters total_parameters wall_seconds
""",
}

TABLES: dict[str, str] = {
    "cells_terrain_mini_leakfree_concepts100": """
    method series learning_rate test_accuracy_pct val_accuracy_pct zero_shot_pct
    zero_shot_low_pct zero_shot_high_pct retention_pct delta_entropy_pct delta_erf95_pct
    delta_gini_pct delta_head_diversity_pct cka cka_debiased embedding_drift weight_drift
    test_accuracy_pct_sd val_accuracy_pct_sd zero_shot_pct_sd zero_shot_low_pct_sd
    zero_shot_high_pct_sd retention_pct_sd delta_entropy_pct_sd delta_erf95_pct_sd
    delta_gini_pct_sd delta_head_diversity_pct_sd cka_sd cka_debiased_sd embedding_drift_sd
    weight_drift_sd num_runs num_diverged zero_shot_num_images
""",
    "cka_entropy": """
    dataset layer num_cells rho p_value p_holm p_floor pearson_r p_pearson p_pearson_floor
    analysis
""",
    "classes_terrain_mini_leakfree_concepts100": """
    series learning_rate class num_images pretrained_pct adapted_pct retention_pct
    adapted_pct_sd retention_pct_sd num_runs
""",
    "corrected_inference": "dataset comparison num_units test statistic p_value p_floor p_holm",
    "dose_response": """
    dataset method outcome num_rates num_seeds num_runs rho p_value p_holm p_floor
    p_standard_error procedure num_arrangements pearson_r p_pearson p_pearson_floor
    slope_per_decade at_lowest_rate at_highest_rate note
""",
    "frontier": """
    dataset method learning_rate num_runs test_accuracy_pct retention_pct test_accuracy_pct_sd
    retention_pct_sd is_on_frontier hypervolume_pct2 method_hypervolume_pct2 on_frontier
""",
    "frontier_in_full": """
    dataset method learning_rate num_runs test_accuracy_pct retention_pct test_accuracy_pct_sd
    retention_pct_sd is_on_frontier hypervolume_pct2 method_hypervolume_pct2
""",
    "grid_means": """
    model protocol transfer dataset series num_cells num_runs rates delta_entropy_pct
    delta_entropy_pct_sd delta_erf95_pct delta_erf95_pct_sd delta_gini_pct delta_gini_pct_sd
    val_accuracy_pct val_accuracy_pct_sd test_accuracy_pct test_accuracy_pct_sd zero_shot_pct
    zero_shot_pct_sd zero_shot_low_pct zero_shot_low_pct_sd zero_shot_high_pct
    zero_shot_high_pct_sd retention_pct retention_pct_sd cka cka_sd zero_shot_num_images
""",
    "layer_profile": """
    dataset method learning_rate num_runs num_layers onset_layer num_contracted_layers
    most_contracted_layer delta_entropy_pct_there onset_epoch
""",
    "layer_profile_cka_entropy": """
    dataset layer num_cells rho p_value p_holm p_floor pearson_r p_pearson p_pearson_floor
""",
    "layer_profile_profile": """
    dataset method learning_rate cell layer num_runs entropy_nats delta_entropy_pct
    delta_erf95_pct delta_gini_pct cka delta_entropy_pct_sd is_contracted
""",
    "layers_terrain_mini_leakfree_concepts100": """
    method series learning_rate layer entropy_nats delta_entropy_pct delta_erf95_pct
    delta_gini_pct cka cka_debiased entropy_nats_sd delta_entropy_pct_sd delta_erf95_pct_sd
    delta_gini_pct_sd cka_sd cka_debiased_sd num_runs delta_entropy_pct_by_seed
""",
    "method_contrast": """
    matching dataset method baseline metric num_pairs num_rates num_seeds mean_method
    mean_baseline difference low high t p_value p_holm low_over_rates high_over_rates
    p_over_rates d_z d_z_low d_z_high p_wilcoxon p_sign_flip p_sign_flip_floor
""",
    "missing_tables": "name words why study command",
    "predictors": """
    scope dataset method probe signal form rho abs_rho low high partial_rho num_runs num_cells
    num_groups signal_label
""",
    "predictors_auc": """
    scope dataset method probe signal form budget_pct higher_means_damaged auc
    oriented_auc_upper_bound num_damaged num_retained
""",
    "predictors_in_full": """
    scope dataset method probe signal form rho abs_rho low high partial_rho num_runs num_cells
    num_groups
""",
    "runs": """
    run_id dataset method learning_rate seed model method_kind regularizer data_seed protocol
    epochs batch_size weight_decay options status origin num_runs selected_epoch train_loss
    val_accuracy_pct test_accuracy_pct test_num_images transfer pretrained_zero_shot_pct
    zero_shot_pct zero_shot_num_images retention_pct delta_entropy_pct delta_erf95_pct
    delta_gini_pct delta_head_diversity_pct cka cka_debiased embedding_drift weight_drift
    rollout_entropy_bits rollout_erf95 rollout_gini patch_to_patch_entropy_bits
    pretrained_rollout_entropy_bits pretrained_rollout_erf95 pretrained_rollout_gini
    pretrained_patch_to_patch_entropy_bits trainable_parameters total_parameters wall_seconds
    zero_shot_low_pct zero_shot_high_pct pretrained_low_pct pretrained_high_pct series
""",
    "seed_contrasts": """
    dataset comparison learning_rate rates rates_differ metric num_first num_second mean_first
    mean_first_sd mean_second mean_second_sd difference low high t p_value p_holm p_exact
    p_exact_floor d d_low d_high metric_label
""",
    "seed_contrasts_in_full": """
    dataset comparison learning_rate rates rates_differ metric num_first num_second mean_first
    mean_first_sd mean_second mean_second_sd difference low high t p_value p_holm p_exact
    p_exact_floor d d_low d_high
""",
    "selection": """
    dataset pool rule picks num_decisions num_candidates retention_pct retention_pct_sd
    regret_points rule_label
""",
    "selection_in_full": """
    dataset pool rule picks num_decisions num_candidates retention_pct retention_pct_sd
    regret_points
""",
    "stability": "dataset signal num_cells sd_over_seeds sd_between_cells seed_share",
    "stability_seeds": "dataset signal num_cells sd_over_seeds sd_between_cells seed_share",
}

SIDE_BY_SIDE_TABLES: dict[str, str] = {
    "cells_terrain_mini_leakfree_concepts100": """
    method series learning_rate test_accuracy_pct val_accuracy_pct zero_shot_pct
    zero_shot_low_pct zero_shot_high_pct retention_pct delta_entropy_pct delta_erf95_pct
    delta_gini_pct delta_head_diversity_pct cka cka_debiased embedding_drift weight_drift
    test_accuracy_pct_sd val_accuracy_pct_sd zero_shot_pct_sd zero_shot_low_pct_sd
    zero_shot_high_pct_sd retention_pct_sd delta_entropy_pct_sd delta_erf95_pct_sd
    delta_gini_pct_sd delta_head_diversity_pct_sd cka_sd cka_debiased_sd embedding_drift_sd
    weight_drift_sd num_runs num_diverged zero_shot_num_images study
""",
    "difference": """
    dataset series learning_rate model protocol transfer measure num_a mean_a mean_a_sd num_b
    mean_b mean_b_sd num_pairs compared is_identical p_sign_flip p_sign_flip_floor difference
    difference_sd low high t p_value p_holm measure_label outcome
""",
    "specifications": "name _0 _1",
    "studies": "study num_runs num_diverged num_cells dataset model protocol transfer",
}

ANSWERS: dict[str, str] = {
    "dose_response": """
    dataset method outcome num_rates num_seeds num_runs rho p_value p_holm p_floor
    p_standard_error procedure num_arrangements pearson_r p_pearson p_pearson_floor
    slope_per_decade at_lowest_rate at_highest_rate note
""",
    "method_contrast": """
    matching dataset method baseline metric num_pairs num_rates num_seeds mean_method
    mean_baseline difference low high t p_value p_holm low_over_rates high_over_rates
    p_over_rates d_z d_z_low d_z_high p_wilcoxon p_sign_flip p_sign_flip_floor
""",
    "seed_contrasts": """
    dataset comparison learning_rate rates rates_differ metric num_first num_second mean_first
    mean_first_sd mean_second mean_second_sd difference low high t p_value p_holm p_exact
    p_exact_floor d d_low d_high
""",
    "predictors": """
    scope dataset method probe signal form rho abs_rho low high partial_rho num_runs num_cells
    num_groups
""",
    "selection": """
    dataset pool rule picks num_decisions num_candidates retention_pct retention_pct_sd
    regret_points
""",
    "frontier": """
    dataset method learning_rate num_runs test_accuracy_pct retention_pct test_accuracy_pct_sd
    retention_pct_sd is_on_frontier hypervolume_pct2 method_hypervolume_pct2
""",
    "layer_profile": """
    dataset method learning_rate num_runs num_layers onset_layer num_contracted_layers
    most_contracted_layer delta_entropy_pct_there onset_epoch
""",
    "stability": "dataset signal num_cells sd_over_seeds sd_between_cells seed_share",
    "regularizers": "",
}

PAGE_ANCHORS: str = """
    theme main report-view studied came-out setting-1 setting-1-training setting-1-layers
    setting-1-classes picture-1 picture-2 attention viewer tables analysis runs run-picker
    provenance run-view run-before run-after run-title hover-text announcer table-tools
    run-viewer
"""

SIDE_BY_SIDE_ANCHORS: str = """
    theme main difference setting-1 specifications provenance hover-text announcer
"""

STATUS_KEYS: str = "cells counts failures is_over num_runs running seconds_left title"

PLAN_KEYS: str = """
    bytes cells num_cells num_done num_failed num_runs num_samples num_to_run seconds study
    title workers
"""

COMPARISON_KEYS: str = """
    adapted drift images intruder_dimensions_per_layer kind num_images pretrained
    reading_adapted reading_pretrained scalars skipped_images stability transfer units
"""

COMPARISON_SCALARS: str = """
    cka cka_debiased delta_entropy_pct delta_erf95_pct delta_gini_pct delta_head_diversity_pct
    delta_late_entropy_pct embedding_drift feature_distance random_text_logit_change
    text_kl_nats text_top1_agreement_pct weight_drift
"""

COMPARISON_ANCHORS: str = "theme main attention viewer provenance hover-text announcer"
