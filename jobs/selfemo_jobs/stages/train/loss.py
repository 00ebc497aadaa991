"""The loss of SELF-GRPO: its formula, and where each part of it is computed.

For token t of a completion with advantage A, let

- ``pi`` be the policy, and ``pi_old`` the policy as training starts,
- ``mu`` be the distribution that the token was sampled from, as self-play recorded it,
- ``pi_ref`` be the reference of the KL term, which does not change.

All are tempered: logits are divided by ``selfPlay.temperature``. The loss of the token is

``l_t = -w_t * min(rho_t * A, clip(rho_t, 1 - low, 1 + high) * A) + beta * rho_t * k_t``

with the ratio ``rho_t = pi / pi_old``, the importance weight ``w_t = min(pi_old / mu, cap)``, and
``k_t = r - log(r) - 1`` for ``r = pi_ref / pi``. The loss of a step is the sum over all sampled
tokens, divided by their number, plus ``imitation`` times the mean cross-entropy of the tokens of
the imitated answers, plus the mean cross-entropy of the tokens of the imitated responses with the
weight of :func:`response_weight`.

=============================  ==================================================================
Part                           Where it is computed
=============================  ==================================================================
``rho``, clipping, KL, sum     TRL's ``GRPOTrainer``, with the arguments of :func:`loss_arguments`
``w``                          :func:`importance_weights`
``w * A``                      :func:`weighted_advantages`
imitation                      :func:`imitation_term`
=============================  ==================================================================

The asymmetric clipping and the mean over the tokens of a step are those of DAPO (arXiv 2503.14476).
Truncated importance sampling corrects for a sampler with other rounding errors; SkyRL uses it as
well. The factor ``rho`` of the KL term makes its gradient that of the reverse KL (DeepSeek-V3.2,
arXiv 2512.02556). The combination, the group weight in A, and the imitation terms are ours.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from selfemo_api.spec import TrainingSpec

#: Below every log-probability of a model, and small enough for its KL term to be finite.
_LEAST_LOGPROB = -1e6


def loss_arguments(training: TrainingSpec, temperature: float) -> dict[str, Any]:
    """Return the arguments of TRL's ``GRPOConfig`` that define the loss.

    Parameters
    ----------
    training
        The field ``spec.training``.
    temperature
        The temperature at which the completions were sampled.

    Returns
    -------
    dict
        Keyword arguments. ``beta`` is 0 because the trainer computes the reference's
        log-probabilities itself and sets beta afterwards
        (:class:`selfemo_jobs.stages.train.trainer.SelfGRPOTrainer`).

    Examples
    --------
    >>> loss_arguments(TrainingSpec(), temperature=1.0)["loss_type"]
    'dapo'
    """
    return {
        "loss_type": "dapo",
        "epsilon": training.clip.low,
        "epsilon_high": training.clip.high,
        "beta": 0.0,
        "use_bias_correction_kl": True,  # the factor rho of the KL term
        "temperature": temperature,
    }


def response_weight(imitation: float, responder_share: float) -> float:
    """Return the weight of the imitated responses in the loss: ``imitation * r / (1 - r)``.

    The warm start gives the responder the share r of its examples, and each example counts the
    same. This weight has the same ratio between the two roles, up to 1 to 1: with r above 0.5 it
    is ``imitation``. Otherwise it would grow without bound as r comes near 1.

    Parameters
    ----------
    imitation
        The field ``training.imitation``: the weight of the imitated answers.
    responder_share
        The field ``warmStart.responderShare``, r.

    Examples
    --------
    >>> round(response_weight(10.0, 0.25), 2), response_weight(10.0, 1.0)
    (3.33, 10.0)
    """
    return imitation * responder_share / max(1.0 - responder_share, responder_share)


def importance_weights(
    old: npt.NDArray[np.float32], sampled: npt.NDArray[np.float32], cap: float
) -> npt.NDArray[np.float32]:
    """Return the truncated importance weight of each token: ``min(exp(old - sampled), cap)``.

    Parameters
    ----------
    old
        Log-probabilities under the policy as training starts, computed by the training stack;
        shape (tokens,).
    sampled
        Log-probabilities that self-play recorded when it sampled the tokens; shape (tokens,).
    cap
        Largest weight, above 0.

    Returns
    -------
    numpy.ndarray
        Weights above 0 and at most ``cap``; shape (tokens,).

    Examples
    --------
    >>> old, sampled = np.zeros(2, np.float32), np.array([0.0, -9.0], np.float32)
    >>> importance_weights(old, sampled, cap=2.0).tolist()
    [1.0, 2.0]
    """
    # the exponential of a difference above the cap could overflow
    weights: npt.NDArray[np.float32] = np.exp(np.minimum(old - sampled, math.log(cap)))
    return weights.astype(np.float32)


def weighted_advantages(advantages: Tensor, weights: Tensor) -> Tensor:
    """Return the advantage of each token, times its importance weight.

    The weight is positive. Multiplying the advantage is therefore the same as multiplying the
    clipped loss of the token. (TRL multiplies the loss itself, but only if it samples with vLLM.)

    Parameters
    ----------
    advantages
        Advantage of each completion; shape (rows,).
    weights
        Importance weight of each token; shape (rows, tokens).

    Returns
    -------
    torch.Tensor
        Shape (rows, tokens).
    """
    return advantages.unsqueeze(1) * weights


def imitation_term(
    logprobs: Tensor, mask: Tensor, tokens: Tensor, weight: float
) -> tuple[Tensor, Tensor]:
    """Return the imitation term of the loss, and the mean cross-entropy that it is made of.

    Parameters
    ----------
    logprobs
        Log-probability of each completion token under the policy; shape (rows, tokens).
    mask
        1 for tokens of imitated answers, 0 for all others; shape (rows, tokens).
    tokens
        Number of tokens of imitated answers in the step, as a scalar. It may be a share of the
        number if the gradients of several processes are averaged.
    weight
        The field ``training.imitation``.

    Returns
    -------
    term : torch.Tensor
        The weighted term, a scalar with gradient.
    cross_entropy : torch.Tensor
        The mean cross-entropy in nats, a scalar without gradient.
    """
    total = -(logprobs * mask).sum()
    return weight * total / tokens, (total / tokens).detach()


def bound_ratios(batch: dict[str, Tensor], imitated: Tensor) -> None:
    """Replace the old and the reference's log-probabilities of imitated tokens.

    GRPOTrainer computes ratio and KL term of all tokens before it masks these. What was improbable
    and is learned has a ratio that may overflow, and infinity times 0 is not a number.

    Parameters
    ----------
    batch
        The tensors of a micro-batch. It is changed.
    imitated
        Which tokens are imitated; shape (rows, tokens).
    """
    old = batch["old_per_token_logps"]
    batch["old_per_token_logps"] = old.masked_fill(imitated, 0.0)  # the ratio is a probability
    if "ref_per_token_logps" in batch:
        reference = batch["ref_per_token_logps"]
        batch["ref_per_token_logps"] = reference.masked_fill(imitated, _LEAST_LOGPROB)
