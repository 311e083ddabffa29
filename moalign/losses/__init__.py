"""Pure losses: log-probabilities and rewards in, one number per example out."""

from moalign.losses.arguments import check_modpo_arguments, check_preference_arguments, warn_small_trained_weight
from moalign.losses.log_probs import mean_log_probs, sequence_log_probs
from moalign.losses.preference import collective_reward, dpo, modpo, modpo_hinge, modpo_logits, objective_reward

__all__ = [
    "check_modpo_arguments",
    "check_preference_arguments",
    "collective_reward",
    "dpo",
    "mean_log_probs",
    "modpo",
    "modpo_hinge",
    "modpo_logits",
    "objective_reward",
    "sequence_log_probs",
    "warn_small_trained_weight",
]
