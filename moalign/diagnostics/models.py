"""Diagnoses that need the models: likelihoods of preference pairs, similarity of their states, next-token entropy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float

from moalign.data.pairs import PreferencePairs
from moalign.measures import IdealRanking, displacement, idealised_ranking, ranking_accuracy
from moalign.measures.states import ches, top_k
from moalign.policy.adapters import AdapterStack
from moalign.policy.batches import PaddedRows, Responses
from moalign.policy.engine import Engine
from moalign.policy.logprobs import completion_states

ROWS_AT_ONCE = 16
POSITIONS_AT_ONCE = 512


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class PairDiagnosis:
    """What policies do with preference pairs. `columns` are by policy, in the order of the stack."""

    columns: tuple[dict[str, float], ...]  # ranking_accuracy, alignment_gap, chosen_drift, rejected_drift, displaced
    ideal: IdealRanking  # of the exact optimum of the preference loss
    reference_accuracy: float  # ranking accuracy of the reference policy


def diagnose_pairs(engine: Engine, stack: AdapterStack, pairs: PreferencePairs) -> PairDiagnosis:
    """Returns ranking accuracies against the idealised one and how far log-probs moved.

    Args:
        engine: with the base policy.
        stack: the trained policies.
        pairs: of one objective; labels are the shares of raters who prefer the chosen response.
    """
    both = engine.encode([*pairs.prompts, *pairs.prompts], [*pairs.chosen, *pairs.rejected])
    count = len(pairs.prompts)
    labels = np.asarray(pairs.labels, dtype=np.float64)
    swapped = labels < 0.5  # the pair's first response is not always the preferred one
    share = np.where(swapped, 1 - labels, labels)

    def ordered(log_probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first, second = log_probs[:count], log_probs[count:]
        return np.where(swapped, second, first), np.where(swapped, first, second)

    reference = ordered(engine.reference_log_probs(both))
    ideal = idealised_ranking(*reference, share)
    rows = []
    for log_probs in engine.log_probs(both, stack):
        chosen, rejected = ordered(log_probs)
        moved = displacement(chosen, rejected, *reference)
        accuracy = ranking_accuracy(chosen, rejected)
        rows.append(
            {
                "ranking_accuracy": accuracy,
                "alignment_gap": ideal.median - accuracy,
                "chosen_drift": moved.chosen,
                "rejected_drift": moved.rejected,
                "displaced": moved.displaced,
            }
        )
    return PairDiagnosis(columns=tuple(rows), ideal=ideal, reference_accuracy=ranking_accuracy(*reference))


@torch.no_grad()
def pair_similarity(
    engine: Engine, pairs: PreferencePairs, policy: AdapterStack | None = None
) -> Float[np.ndarray, " pairs"]:
    """Returns the length-normalised CHES of every pair: the higher, the more its training displaces likelihood.

    Train without the highest ones where both responses are of the same kind, such as two refusals.

    Args:
        engine: with the base policy.
        pairs: preference pairs.
        policy: a stack of one; None for the base, where training starts.
    """
    policy = None if policy is None else engine.on_device(policy)
    found = []
    for start in range(0, len(pairs.prompts), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        sides = [
            _states(engine, engine.encode(pairs.prompts[part], texts[part]), policy)
            for texts in (pairs.chosen, pairs.rejected)
        ]
        found.append(ches(*sides[0], *sides[1]).normalised.double().cpu().numpy())
    return np.concatenate(found)


@torch.no_grad()
def next_token_columns(
    engine: Engine, stack: AdapterStack, prompts: Sequence[Any], responses: Sequence[Sequence[str]], k: int = 10
) -> list[dict[str, float]]:
    """Returns top_k_mass and top_k_entropy (nats) of each policy along its own responses, means over tokens.

    Both falling from one checkpoint to the next while the loss still improves says that diversity is being lost.

    Args:
        engine: with the base policy.
        stack: the policies.
        prompts: one per response.
        responses: [policies][responses] texts that each policy gave.
        k: most likely tokens that count.

    Source: arXiv 2410.11677.
    """
    stack = engine.on_device(stack)
    columns = []
    for policy, texts in enumerate(responses):
        totals, tokens = torch.zeros(2, dtype=torch.float64), 0
        encoded = engine.encode(prompts, texts)
        for start in range(0, len(encoded), ROWS_AT_ONCE):
            chosen = range(start, min(start + ROWS_AT_ONCE, len(encoded)))
            rows = engine.language_model.rows(encoded, chosen)
            states = completion_states(engine.language_model, rows, stack.select([policy]))[0]
            for part in torch.split(states, POSITIONS_AT_ONCE):
                found = top_k(engine.language_model.logits(part), k)
                totals += torch.stack([found.mass.double().sum(), found.entropy.double().sum()]).cpu()
            tokens += len(states)
        columns.append({"top_k_mass": float(totals[0] / tokens), "top_k_entropy": float(totals[1] / tokens)})
    return columns


def _states(engine: Engine, responses: Responses, policy: AdapterStack | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the states that predict each response's tokens [responses, tokens, width] and where they are."""
    model = engine.language_model
    rows = PaddedRows.build(responses, range(len(responses)), model.pad_id, model.device)
    flat = completion_states(model, rows, policy)[0]
    counts = torch.bincount(rows.row, minlength=len(responses))
    mask = torch.arange(int(counts.max()), device=flat.device) < counts[:, None]
    states = flat.new_zeros(*mask.shape, flat.shape[-1])
    states[mask] = flat  # completion tokens come row by row, in order
    return states, mask
