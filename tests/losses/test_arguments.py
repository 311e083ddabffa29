"""What the preference losses refuse and what they warn about."""

from __future__ import annotations

import warnings

import pytest
import torch

from moalign.errors import DefinitionError, NumericsWarning
from moalign.losses import check_modpo_arguments, check_preference_arguments, warn_small_trained_weight
from moalign.losses.arguments import check_shapes


def test_every_bad_value_is_listed_with_its_place():
    with pytest.raises(DefinitionError) as error:
        check_modpo_arguments(
            trained_weight=torch.tensor([0.5, 0.0, 1.0, float("nan")]),
            margin_weights=torch.tensor([[0.5], [1.0], [-0.2], [0.1]]),
            beta=torch.tensor([0.1, 0.1, -1.0, 0.1]),
            labels=torch.tensor([0.0, 1.0, 1.5, float("nan")]),
            label_smoothing=0.6,
            where="sweep",
        )
    text = "\n".join(error.value.problems)
    assert len(error.value.problems) == 6 and "6 problems in sweep" in str(error.value)
    for words in ("beta[2] is -1", "trained_weight[1] is 0", "trained_weight[3] is nan", "margin_weights[2] is -0.2"):
        assert words in text
    assert "2 of 4 labels" in text and "label_smoothing is 0.6" in text


def test_the_refusal_of_a_zero_weight_says_what_to_do():
    with pytest.raises(DefinitionError, match="Drop that weight vector, or train it on the pairs of"):
        check_modpo_arguments(trained_weight=0.0, margin_weights=torch.ones(1), beta=0.1)


def test_good_values_pass():
    check_modpo_arguments(
        trained_weight=torch.tensor([0.5, 1.0]),
        margin_weights=torch.tensor([[0.5], [0.0]]),
        beta=0.1,
        labels=torch.tensor([0.0, 0.5, 1.0]),
        label_smoothing=0.49,
    )
    check_preference_arguments(beta=torch.tensor(0.1))


@pytest.mark.parametrize("beta", [0.0, float("inf"), float("nan")])
def test_preference_arguments_refuse_beta(beta):
    with pytest.raises(DefinitionError, match="KL strength"):
        check_preference_arguments(beta=beta)


def test_small_trained_weights_warn_once_with_the_smallest():
    """1 / .02 = 50: gradients are up to fifty times larger."""
    with pytest.warns(NumericsWarning, match=r"2 weight vector\(s\).*smallest 0\.02.*50 times") as caught:
        warn_small_trained_weight(torch.tensor([0.02, 0.5, 0.04]))
    assert len(caught) == 1


def test_weights_from_the_threshold_up_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_small_trained_weight(0.05)
        warn_small_trained_weight(torch.tensor([1.0, 0.2]))


def test_shapes_that_fit_pass():
    check_shapes(
        "loss",
        policy=(torch.zeros(4, 3, 8), "batch"),
        margins=(torch.zeros(8, 2), "batch margins"),
        weights=(torch.zeros(3, 2), "margins"),
        beta=(0.1, ""),
        labels=(None, "batch"),
    )


def test_every_misfit_is_named():
    with pytest.raises(DefinitionError) as error:
        check_shapes(
            "loss",
            policy=(torch.zeros(4, 8), "batch"),
            reference=(torch.zeros(7), "batch"),
            margins=(torch.zeros(8), "batch margins"),
            beta=(torch.zeros(3), ""),
        )
    text = str(error.value)
    assert "agree along the batch axis, got policy 8, reference 7" in text
    assert "margins must have shape [*stack, batch, margins], got (8,)" in text
    assert "must broadcast" in text and "(3,)" in text and "(4,)" in text
