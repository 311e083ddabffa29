"""What choosing the best of n responses by a proxy brings in the reward that counts, for all n from one sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from moalign.arrays import FloatArray, as_matrix
from moalign.errors import DefinitionError


def best_of_n(proxy: ArrayLike, gold: ArrayLike, sizes: Sequence[int]) -> FloatArray:
    """Returns the expected gold reward of the response with the highest proxy among n, unbiased [prompts, sizes].

    All subsets of size n of a prompt's responses are averaged over in closed form: with responses in ascending order of
    the proxy, E_n = sum_i C(i - 1, n - 1) / C(N, n) gold_i. Responses with equal proxies are chosen from at random.

    `oracle.best_of_n` answers this for many weight vectors at once, from small samples (its table grows with N^2).

    Args:
        proxy, gold: rewards of the same responses [prompts, responses].
        sizes: n, each from 1 to the number of responses.

    Raises:
        DefinitionError: shapes that differ, values that are not finite, or an n outside its range.

    Source: arXiv 2112.09332, appendix I; used for ensembles in arXiv 2310.02743.
    """
    choice, value = as_matrix(proxy, "proxy"), as_matrix(gold, "gold")
    if choice.shape != value.shape or not choice.size:
        raise DefinitionError(
            f"proxy and gold must be rewards of the same responses, got {choice.shape}, {value.shape}."
        )
    weights = np.stack([best_of_n_weights(choice.shape[1], n) for n in sizes], axis=1)  # [responses, sizes]
    return np.stack([_untied(c, v) @ weights for c, v in zip(choice, value, strict=True)])


def best_of_n_weights(responses: int, n: int) -> FloatArray:
    """Returns the probability that the i-th lowest of all responses is the best of n drawn without replacement.

    C(i - 1, n - 1) / C(responses, n) for i = 1 .. responses, by logarithms: 12,500 of 12,600 do not overflow.
    """
    if not (isinstance(n, (int, np.integer)) and 1 <= n <= responses):
        raise DefinitionError(f"the n of best-of-n must be a whole number in 1..{responses}, got {n!r}.")
    from scipy.special import gammaln

    rank = np.arange(n, responses + 1)
    total = gammaln(responses + 1) - gammaln(n + 1) - gammaln(responses - n + 1)
    weights = np.zeros(responses)
    weights[n - 1 :] = np.exp(gammaln(rank) - gammaln(n) - gammaln(rank - n + 1) - total)
    return weights / weights.sum()  # rounding of the logarithms


def _untied(proxy: FloatArray, gold: FloatArray) -> FloatArray:
    """Returns gold in ascending order of the proxy, averaged where the proxy ties."""
    order = np.argsort(proxy, kind="stable")
    _, block = np.unique(proxy[order], return_inverse=True)
    return (np.bincount(block, gold[order]) / np.bincount(block))[block]
