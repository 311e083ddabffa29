"""What a finished study shows beyond its front: noise, diagnoses from its records, and diagnoses with its models."""

from moalign.diagnostics.models import PairDiagnosis, diagnose_pairs, next_token_columns, pair_similarity
from moalign.diagnostics.records import Diagnosis, ProxyCheck, diagnose, proxy_check
from moalign.diagnostics.sweep import (
    CANDIDATES,
    Chance,
    EqualKL,
    Findings,
    Gains,
    chance_front,
    compare_at_equal_kl,
    examine,
    paired_gains,
)

__all__ = [
    "CANDIDATES",
    "Chance",
    "Diagnosis",
    "EqualKL",
    "Findings",
    "Gains",
    "PairDiagnosis",
    "ProxyCheck",
    "chance_front",
    "compare_at_equal_kl",
    "diagnose",
    "diagnose_pairs",
    "examine",
    "next_token_columns",
    "pair_similarity",
    "paired_gains",
    "proxy_check",
]
