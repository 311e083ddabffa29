"""What the answer to a question is worth before it is given, from its probability for each particle of a posterior."""

from __future__ import annotations

import numpy as np

from moalign.arrays import FloatArray


def information_gain(probability: FloatArray) -> FloatArray:
    """Returns the expected information, in nats, of the answer to each question about the person [questions].

    IG = h(mean_s p_s) - mean_s h(p_s), h the entropy over answers (Houlsby et al., arXiv 1112.5745): 0 <= IG <= log of
    the number of answers, and 0 when all particles agree on p, as for equal responses.

    Args:
        probability: of every answer for each particle [answers, questions, particles], 1 in sum over answers.
    """
    return np.maximum(_entropy(probability.mean(axis=2)) - _entropy(probability).mean(axis=1), 0.0)


def choice_gain(probability: FloatArray, utilities: FloatArray) -> FloatArray:
    """Returns how much better a policy chosen after the answer to each question is than one chosen now [questions].

    The expected value of information for one answer: sum_o P(o) max_x E[u_x | o] - max_x E[u_x] >= 0. It is 0 where no
    answer would change the choice.

    Args:
        probability: as of `information_gain`.
        utilities: of every policy for every particle, in a unit that particles share [particles, policies].
    """
    after = probability @ utilities / len(utilities)  # P(answer) E[u | answer]
    return np.maximum(after.max(axis=2).sum(axis=0) - utilities.mean(axis=0).max(), 0.0)


def _entropy(p: FloatArray) -> FloatArray:
    """Returns the entropy over the first axis, in nats."""
    return -(p * np.log(np.maximum(p, 1e-300))).sum(axis=0)
