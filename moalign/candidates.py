"""Candidate responses: sampled from the base policy and scored once, then asked any number of times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float

from moalign.arrays import FloatArray
from moalign.data.prompts import Prompts, load_prompts
from moalign.errors import DefinitionError
from moalign.oracle import OracleResult, oracle
from moalign.policy.engine import Engine
from moalign.policy.generate import Sampling
from moalign.problem import Objective, Problem
from moalign.scoring import Scorer
from moalign.store import describe, fingerprint
from moalign.store.workspace import FolderWorkspace

FOLDER = "_candidates"  # no study can have this name


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class CandidateSet:
    """Samples of the base policy with their rewards. Every sample stands for an equal share of the base policy.

    Attributes:
        objectives: names in axis order.
        prompts: the prompts.
        responses: [prompts][candidates] texts.
        rewards: of every response on every objective.
        judges: names of further rewards, which are reported but never optimised.
        judged: of every response by every judge.
    """

    objectives: tuple[str, ...]
    prompts: tuple[Any, ...]
    responses: tuple[tuple[str, ...], ...]
    rewards: Float[np.ndarray, "prompts candidates objectives"]
    judges: tuple[str, ...] = ()
    judged: Float[np.ndarray, "prompts candidates judged"] = field(default_factory=lambda: np.zeros((0, 0, 0)))

    @property
    def tensor(self) -> torch.Tensor:
        """The rewards as `moalign.oracle` takes them, float64 [prompts, candidates, objectives]."""
        return torch.from_numpy(self.rewards)

    def oracle(self, weights: FloatArray | torch.Tensor, beta: float, **options: Any) -> OracleResult:
        """Returns the best that policies can reach at these weights, corrected for the bias of samples.

        `candidate_limited` of the result says for which weights the samples are too few; `values` holds what the judges
        think of the optima of the rewards.

        Args:
            weights: [weights, objectives].
            beta: KL strength.
            options: as in `moalign.oracle.oracle`, such as want_jacobian.
        """
        values = torch.from_numpy(self.judged) if self.judges else None
        given = {"want_ess": True, "corrected": True, "per_prompt": False, **options}
        return oracle(self.tensor, weights, beta, values=values, **given)

    def __repr__(self) -> str:
        prompts, candidates, _ = self.rewards.shape
        judged = f", judged by {', '.join(self.judges)}" if self.judges else ""
        return f"<CandidateSet {prompts} prompts x {candidates} responses, {', '.join(self.objectives)}{judged}>"


def draw_candidates(
    problem: Problem,
    prompts: Prompts | Sequence[Any] | str | Path | None = None,
    *,
    samples: int = 64,
    max_new_tokens: int = 64,
    judges: Mapping[str, Any] | None = None,
    store: str | Path | None = None,
    seed: int = 0,
    device: str | None = None,
) -> CandidateSet:
    """Returns samples of the base policy for the prompts, scored; both are computed once and kept in the store.

    Args:
        problem: base policy and objectives.
        prompts: anything `load_prompts` takes; the problem's own when None.
        samples: per prompt. A KL of d nats needs many more than exp(d).
        max_new_tokens: longest response.
        judges: held-out rewards by name.
        store: folder of all results; None keeps nothing.
        seed: of the sampling.
        device: torch device; an accelerator if there is one when None.

    Raises:
        DefinitionError: no prompts, or a judge with the name of an objective.
        RewardError: a reward failed on these responses.
    """
    given = problem.prompts if prompts is None else prompts
    if given is None:
        raise DefinitionError("candidates need prompts=..., because the problem has none.")
    chosen = list(given if isinstance(given, Prompts) else load_prompts(given))
    shared = [name for name in judges or {} if name in problem.names]
    if shared:
        raise DefinitionError(f"judges {', '.join(shared)} have the name of an objective; choose others.")
    workspace = None if store is None else candidate_workspace(problem, store)
    engine = Engine(problem.policy, workspace=workspace, seed=seed, device=device)
    return scored_candidates(Scorer(problem, engine), chosen, samples, max_new_tokens, judges)


def candidate_workspace(problem: Problem, store: str | Path) -> FolderWorkspace:
    """Returns where a store keeps candidates: a folder for each base policy, whose weights decide about the samples."""
    return FolderWorkspace(Path(store) / FOLDER / fingerprint(describe(problem.policy))[:16])


def scored_candidates(
    scorer: Scorer, prompts: Sequence[Any], samples: int, max_new_tokens: int, judges: Mapping[str, Any] | None = None
) -> CandidateSet:
    """Returns what `draw_candidates` does, with samples and rewards kept by the scorer's engine."""
    problem, engine = scorer.problem, scorer.engine
    sampling = Sampling(samples=samples, max_new_tokens=max_new_tokens)
    _, texts = engine.remembered_samples("candidates", prompts, sampling)
    of = [prompt for prompt in prompts for _ in range(samples)]
    shape = (len(prompts), samples, -1)
    judging = tuple(Objective(name, reward=reward) for name, reward in (judges or {}).items())
    judged = np.zeros((len(prompts), samples, 0))
    if judging:
        asked = Problem(policy=problem.policy, objectives=judging)
        judged = Scorer(asked, engine).remembered(of, texts).reshape(shape)
    return CandidateSet(
        objectives=problem.names,
        prompts=tuple(prompts),
        responses=tuple(tuple(texts[p * samples : (p + 1) * samples]) for p in range(len(prompts))),
        rewards=scorer.remembered(of, texts).reshape(shape),
        judges=tuple(o.name for o in judging),
        judged=judged,
    )
