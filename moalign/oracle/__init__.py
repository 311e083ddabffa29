"""The exact KL-regularised optimum on candidate sets: what a trained policy could at best reach."""

from moalign.oracle.best_of_n import BestOfN, best_of_n, best_of_n_kl
from moalign.oracle.cross_fit import CrossFit, cross_fit
from moalign.oracle.dual import Optimum
from moalign.oracle.optimum import OracleResult, oracle
from moalign.oracle.policies import PolicyValues, gain_share, policy_values, pooled_log_base, regret
from moalign.oracle.queries import PromptMaximin, constrained, maximin, prompt_maximin
from moalign.oracle.target import kl_target
from moalign.oracle.utility import best_utility

__all__ = [
    "BestOfN",
    "CrossFit",
    "Optimum",
    "OracleResult",
    "PolicyValues",
    "PromptMaximin",
    "best_of_n",
    "best_of_n_kl",
    "best_utility",
    "constrained",
    "cross_fit",
    "gain_share",
    "kl_target",
    "maximin",
    "oracle",
    "policy_values",
    "pooled_log_base",
    "prompt_maximin",
    "regret",
]
