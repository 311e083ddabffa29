"""What it costs that candidates are samples: effective sizes, leading bias, and where samples do not suffice."""

from __future__ import annotations

from typing import NamedTuple, final

from torch import Tensor

from moalign.oracle.candidates import Candidates
from moalign.oracle.tilt import Tilt, Tilter

TRUSTED_ESS = 10.0  # effective candidates per prompt; with fewer, a tilt rests on a handful of samples
TRUSTED_GAP = 2.0  # nats that a prompt's KL has to stay below log(number of candidates)


class Squares(NamedTuple):
    """Sums over candidates of squared tilted probabilities, and averages under those squares."""

    total: Tensor  # [prompts, weights], in [1 / candidates, 1]; its inverse is the effective sample size
    rewards: Tensor  # [prompts, weights, objectives], relative to the candidates' centre
    values: Tensor  # [prompts, weights, judged]


@final
class Squarer:
    """Squares of tilted probabilities: tilts by twice the query of the squared base probabilities."""

    def __init__(self, candidates: Candidates, *, half: bool = False) -> None:
        self._squared, self._log_base_total = candidates.squared()
        self._tilter = Tilter(self._squared, half=half)
        self.base_total = self._log_base_total.exp()  # [prompts], the sum of squared base probabilities

    def __call__(self, queries: Tensor, tilt: Tilt) -> Squares:
        """Returns the squares that belong to `tilt`, which is the tilt by `queries` [weights, objectives]."""
        second = self._tilter(2 * queries)
        log_z = second.log_z + self._squared.centre @ (2 * queries).mT + self._log_base_total[:, None]
        return Squares(
            total=(log_z - 2 * tilt.log_z).exp(),
            rewards=second.rewards + self._squared.centre[:, None],
            values=second.values + self._squared.value_centre[:, None],
        )


def corrected(tilt: Tilt, squares: Squares, queries: Tensor, base_total: Tensor) -> Tilt:
    """Returns `tilt` without its leading bias as an estimate from samples.

    A ratio of sample means is biased by minus the squared probabilities times the distance from the mean, and the
    logarithm of a sample mean by minus half its relative variance; both are of first order in 1 / candidates.
    """
    total = squares.total[..., None]
    rewards = tilt.rewards + total * (squares.rewards - tilt.rewards)
    log_z = tilt.log_z + (squares.total - base_total[:, None]) / 2
    return tilt._replace(
        rewards=rewards,
        values=tilt.values + total * (squares.values - tilt.values),
        log_z=log_z,
        kl=(rewards * queries).sum(-1) - log_z,
    )


def candidate_limited(candidates: Candidates, kl: Tensor, ess: Tensor) -> Tensor:
    """Returns the share of prompts [weights] whose samples are too few; `kl` and `ess` are [prompts, weights].

    A set of N samples cannot show a KL above log N, and saturates well before that.
    """
    count = candidates.used.sum(-1, keepdim=True)  # [prompts, 1]
    limited = (kl > count.log() - TRUSTED_GAP) | (ess < TRUSTED_ESS)
    return limited.to(kl.dtype).mean(0)
