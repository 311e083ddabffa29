"""The exact KL-regularised optimum on candidate sets: what a trained policy could at best reach."""

from moalign.oracle.optimum import OracleResult, oracle
from moalign.oracle.policies import PolicyValues, gain_share, policy_values, regret
from moalign.oracle.target import kl_target

__all__ = ["OracleResult", "PolicyValues", "gain_share", "kl_target", "oracle", "policy_values", "regret"]
