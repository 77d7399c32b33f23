"""The names of the files in a run folder and in a study folder."""

from __future__ import annotations

SPEC_FILE = "spec.json"
EVENTS_FILE = "events.jsonl"
RESULT_FILE = "result.json"
FAILURE_FILE = "failure.json"
LOCK_FILE = ".lock"
ATTENTION_FILE = "attention.npz"
CHECKPOINT_FOLDER = "checkpoint"
ADAPTED_FOLDER = "adapted"
STUDY_FILE = "study.json"
RUNS_FOLDER = "runs"
PROGRESS_FOLDER = "progress"
REPORT_FILE = "report.json"
"""What `driftscope compare` and a monitor write beside their page."""
RESCUE_FILE = "rescue.json"
"""What a rescue writes beside its page."""
