"""What runs leave behind: the run folder, and the tables that many of them make."""

from __future__ import annotations

from driftscope.files import whole_file, write_whole
from driftscope.records.budget import budget_sentence
from driftscope.records.claims import claimed, is_claimed, refuse_foreign_folder
from driftscope.records.columns import (
    DRIFT_SCALARS,
    STRUCTURE_SCALARS,
    retention_interval_pct,
    transfer_scalars,
)
from driftscope.records.epochs import epochs_sentence
from driftscope.records.events import append_event, read_events, rewrite_events
from driftscope.records.file_names import (
    ADAPTED_FOLDER,
    ATTENTION_FILE,
    CHECKPOINT_FOLDER,
    EVENTS_FILE,
    FAILURE_FILE,
    LOCK_FILE,
    PROBE_FILE,
    PROGRESS_FOLDER,
    REPORT_FILE,
    RESCUE_FILE,
    RESULT_FILE,
    RUNS_FOLDER,
    SPEC_FILE,
    STRENGTHS_FILE,
    STUDY_FILE,
)
from driftscope.records.folder import (
    Overlay,
    RunRecord,
    is_done,
    is_run,
    load_overlay,
    load_run,
    load_runs,
    read_failure,
    read_result,
    read_spec,
    readable_runs,
    write_failure,
    write_overlay,
    write_result,
)
from driftscope.records.interventions import intervention_sentences
from driftscope.records.json_files import read_json, read_sealed, write_json, write_sealed
from driftscope.records.rescued import rescued_from
from driftscope.records.rescues import rescue_sentences
from driftscope.records.tables import (
    Tables,
    all_tables,
    heads_table,
    history_table,
    layers_table,
    runs_table,
)
from driftscope.records.training_images import training_images_sentence

__all__ = [
    "ADAPTED_FOLDER",
    "ATTENTION_FILE",
    "CHECKPOINT_FOLDER",
    "DRIFT_SCALARS",
    "EVENTS_FILE",
    "FAILURE_FILE",
    "LOCK_FILE",
    "PROBE_FILE",
    "PROGRESS_FOLDER",
    "REPORT_FILE",
    "RESCUE_FILE",
    "RESULT_FILE",
    "RUNS_FOLDER",
    "SPEC_FILE",
    "STRENGTHS_FILE",
    "STRUCTURE_SCALARS",
    "STUDY_FILE",
    "Overlay",
    "RunRecord",
    "Tables",
    "all_tables",
    "append_event",
    "budget_sentence",
    "claimed",
    "epochs_sentence",
    "heads_table",
    "history_table",
    "intervention_sentences",
    "is_claimed",
    "is_done",
    "is_run",
    "layers_table",
    "load_overlay",
    "load_run",
    "load_runs",
    "read_events",
    "read_failure",
    "read_json",
    "read_result",
    "read_sealed",
    "read_spec",
    "readable_runs",
    "refuse_foreign_folder",
    "rescue_sentences",
    "rescued_from",
    "retention_interval_pct",
    "rewrite_events",
    "runs_table",
    "training_images_sentence",
    "transfer_scalars",
    "whole_file",
    "write_failure",
    "write_json",
    "write_overlay",
    "write_result",
    "write_sealed",
    "write_whole",
]
