"""Gaussian processes behind the searches: fits, predictions, and the choice of the next points by expected gain.

All inputs live in the unit cube and every output is maximised, in float64. botorch is imported when first used. One
thread computes: a second one makes these many small matrices slower, many times over on a busy machine.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import numpy as np

from moalign.arrays import FloatArray
from moalign.threads import one_thread

SAMPLES = {1: 128, 2: 64, 3: 32}  # draws from the posterior behind one expected gain, by number of objectives
FEWEST_SAMPLES = 16  # with more objectives, where each draw costs much more
MOST_OBJECTIVES = 4  # above, or with more points than MOST_POINTS, random scalarisations replace the hypervolume
MOST_POINTS = 100
CHUNK = 256  # candidates judged at once
FEWEST = 2  # points that a Gaussian process needs
NAMES = {  # of acquisition functions
    "qLogNoisyExpectedImprovement": "qLogNEI",
    "qLogNoisyExpectedHypervolumeImprovement": "qLogNEHVI",
    "qLogNParEGO": "qLogNParEGO",
}


@final
@dataclass(frozen=True, eq=False)
class Surrogate:
    """One Gaussian process per output, fitted to points [points, inputs] -> values [points, outputs]."""

    model: Any
    points: FloatArray
    seed: int

    def predict(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Returns mean and standard deviation [points, outputs] of the noise-free values."""
        import torch

        with one_thread(), torch.no_grad():
            posterior = self.model.posterior(torch.tensor(points, dtype=torch.float64))
            return posterior.mean.numpy(), posterior.variance.clamp_min(0).sqrt().numpy()

    def draws(self, count: int) -> Callable[[FloatArray], FloatArray]:
        """Returns functions drawn from the posterior of the first output: points [points, inputs] -> [draws, points].

        Matheron's rule on random Fourier features (Wilson et al., arXiv 2011.04026), so any points may be asked.
        """
        import torch
        from botorch.sampling.pathwise import draw_matheron_paths

        torch.manual_seed(self.seed)
        with one_thread(), torch.no_grad(), _quiet():
            paths = draw_matheron_paths(self.model.models[0], torch.Size([count]))

        def at(points: FloatArray) -> FloatArray:
            with one_thread(), torch.no_grad():
                found: FloatArray = paths(torch.tensor(points, dtype=torch.float64)).numpy()
                return found

        return at

    def gain(
        self,
        reference_point: FloatArray,
        pending: FloatArray,
        *,
        baseline: FloatArray | None = None,
        limits: Sequence[tuple[int, float]] = (),
    ) -> Gain:
        """Returns the function from candidates [candidates, inputs] to the log of their expected gain [candidates].

        With several outputs that are objectives this is the noisy expected hypervolume improvement in its logarithmic
        form (arXiv 2310.20708; beyond four objectives or a hundred points Chebyshev scalarisations of it, qLogNParEGO);
        with one it is the noisy expected improvement.

        Args:
            reference_point: [objectives]; the first so many outputs are the objectives.
            pending: points that are being evaluated [pending, inputs].
            baseline: points whose predictions are the present front; those that were fitted when None.
            limits: (output, upper bound) of outputs that must stay below a bound.
        """
        import torch

        torch.manual_seed(self.seed)
        with one_thread(), _quiet():
            tensors = [torch.tensor(a, dtype=torch.float64) for a in (self.points if baseline is None else baseline,)]
            waiting = torch.tensor(pending, dtype=torch.float64) if len(pending) else None
            acquisition = _acquisition(self.model, reference_point, tensors[0], waiting, limits, self.seed)

        return Gain(acquisition)


@final
@dataclass(frozen=True, eq=False)
class Gain:
    """Candidates [candidates, inputs] -> log of their expected gain [candidates], by botorch's acquisition function."""

    acquisition: Any

    def __call__(self, candidates: FloatArray) -> FloatArray:
        import torch

        with one_thread(), torch.no_grad(), _quiet():
            rows = torch.tensor(candidates, dtype=torch.float64).unsqueeze(1)  # [candidates, 1, inputs]
            return torch.cat([self.acquisition(part) for part in torch.split(rows, CHUNK)]).numpy()

    @property
    def name(self) -> str:
        """What the function is called in the literature."""
        return NAMES[type(self.acquisition).__name__]


def fit(points: FloatArray, values: FloatArray, seed: int, noise: FloatArray | None = None) -> Surrogate:
    """Returns independent Gaussian processes, their kernels fitted by marginal likelihood.

    Args:
        points: [points, inputs] in the unit cube, at least two.
        values: [points, outputs]; standardised here.
        seed: of everything random, so that the same data give the same next points.
        noise: variances of the values [points, outputs]; inferred when None.
    """
    import torch
    from botorch.fit import fit_gpytorch_mll
    from botorch.models.gp_regression import SingleTaskGP
    from botorch.models.model_list_gp_regression import ModelListGP
    from gpytorch.mlls import SumMarginalLogLikelihood

    torch.manual_seed(seed)
    with one_thread(), _quiet():
        x, y = (torch.tensor(a, dtype=torch.float64) for a in (points, values))
        variance = None if noise is None else torch.tensor(np.maximum(noise, 1e-12), dtype=torch.float64)
        parts = [
            SingleTaskGP(x, y[:, [i]], train_Yvar=None if variance is None else variance[:, [i]])
            for i in range(y.shape[1])
        ]
        model = ModelListGP(*parts)
        fit_gpytorch_mll(SumMarginalLogLikelihood(model.likelihood, model))
    return Surrogate(model, points, seed)


def _acquisition(model: Any, corner: FloatArray, baseline: Any, pending: Any, limits: Any, seed: int) -> Any:
    import torch
    from botorch.acquisition.logei import qLogNoisyExpectedImprovement
    from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
    from botorch.acquisition.multi_objective.objective import IdentityMCMultiOutputObjective
    from botorch.acquisition.multi_objective.parego import qLogNParEGO
    from botorch.acquisition.objective import GenericMCObjective
    from botorch.sampling.normal import SobolQMCNormalSampler

    objectives = len(corner)
    bounds: Any = [partial(_excess, output=output, bound=bound) for output, bound in limits] or None
    sampler = SobolQMCNormalSampler(torch.Size([SAMPLES.get(objectives, FEWEST_SAMPLES)]), seed=seed)
    common: Any = {"X_baseline": baseline, "X_pending": pending, "sampler": sampler, "prune_baseline": True}
    if objectives == 1:
        only = GenericMCObjective(_first)
        return qLogNoisyExpectedImprovement(model, objective=only, constraints=bounds, **common)
    chosen = IdentityMCMultiOutputObjective(outcomes=list(range(objectives)))
    if objectives > MOST_OBJECTIVES or len(baseline) > MOST_POINTS:
        return qLogNParEGO(model, objective=chosen, constraints=bounds, **common)
    return qLogNoisyExpectedHypervolumeImprovement(
        model, ref_point=corner.tolist(), objective=chosen, constraints=bounds, **common
    )


def _excess(outputs: Any, output: int, bound: float) -> Any:
    """Returns by how much an output is above its bound; botorch takes values <= 0 as feasible."""
    return outputs[..., output] - bound


def _first(outputs: Any, X: Any = None) -> Any:
    return outputs[..., 0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences botorch's remarks on numerics (jitter, scaling of a constant output), which call for no action here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
