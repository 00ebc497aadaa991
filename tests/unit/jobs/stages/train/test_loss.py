"""The parts of the loss that are not TRL's. test_trainer.py checks the loss as a whole."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from selfemo_api.spec import TrainingSpec
from selfemo_jobs.stages.train.loss import (
    imitation_term,
    importance_weights,
    loss_arguments,
    response_weight,
    weighted_advantages,
)


def test_importance_weights_are_capped() -> None:
    old = np.array([0.0, -1.0, -2.0, 500.0], np.float32)
    sampled = np.array([-0.5, -1.0, -1.0, -500.0], np.float32)
    weights = importance_weights(old, sampled, 1.5)
    assert weights.tolist() == pytest.approx([1.5, 1.0, math.exp(-1.0), 1.5])


def test_the_arguments_follow_from_the_spec() -> None:
    training = TrainingSpec.model_validate({"clip": {"low": 0.1, "high": 0.3}, "klBeta": 0.5})
    arguments = loss_arguments(training, temperature=0.7)
    assert (arguments["epsilon"], arguments["epsilon_high"]) == (0.1, 0.3)
    assert arguments["temperature"] == 0.7
    assert arguments["beta"] == 0.0  # otherwise TRL loads the reference itself


def test_each_token_has_the_advantage_of_its_row_times_its_weight() -> None:
    weights = torch.tensor([[1.0, 0.5], [2.0, 0.0]])
    advantages = weighted_advantages(torch.tensor([2.0, -1.0]), weights)
    assert advantages.tolist() == [[2.0, 1.0], [-2.0, 0.0]]


def test_the_imitation_term_is_the_weighted_cross_entropy_of_the_marked_tokens() -> None:
    logprobs = torch.tensor([[-1.0, -2.0], [-4.0, -8.0]], requires_grad=True)
    mask = torch.tensor([[1, 1], [0, 1]])
    term, cross_entropy = imitation_term(logprobs, mask, torch.tensor(4.0), weight=0.5)
    assert cross_entropy.item() == (1 + 2 + 8) / 4
    assert term.item() == 0.5 * (1 + 2 + 8) / 4
    term.backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [[-0.125, -0.125], [0.0, -0.125]]


def test_the_roles_have_the_weights_of_the_warm_start() -> None:
    assert response_weight(10.0, 0.0) == 0.0
    assert response_weight(6.0, 0.25) == pytest.approx(2.0)
    assert response_weight(6.0, 0.4) == pytest.approx(4.0)


@pytest.mark.parametrize("share", [0.5, 0.51, 0.9, 1.0])
def test_responses_never_have_more_weight_than_answers(share: float) -> None:
    assert response_weight(6.0, share) == pytest.approx(6.0)
