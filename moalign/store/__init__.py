"""Facts on disk: studies, trials, events, artefacts; the lease of the one driver; the fingerprint of a definition."""

from moalign.store.artefacts import (
    is_complete,
    publish,
    verify,
    write_bytes_atomic,
    write_json_atomic,
    write_text_atomic,
)
from moalign.store.differences import differences
from moalign.store.fingerprint import describe, fingerprint
from moalign.store.lease import Holder
from moalign.store.lines import load_generations, load_metrics, load_reference_generations
from moalign.store.records import REFERENCE, EventRecord, Finding, Measured, State, TrialRecord
from moalign.store.store import Store
from moalign.store.study_store import StudyStore

__all__ = [
    "REFERENCE",
    "EventRecord",
    "Finding",
    "Holder",
    "Measured",
    "State",
    "Store",
    "StudyStore",
    "TrialRecord",
    "describe",
    "differences",
    "fingerprint",
    "is_complete",
    "load_generations",
    "load_metrics",
    "load_reference_generations",
    "publish",
    "verify",
    "write_bytes_atomic",
    "write_json_atomic",
    "write_text_atomic",
]
