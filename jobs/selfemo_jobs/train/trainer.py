"""SELF-GRPO on recorded groups: TRL's GRPOTrainer with its generation left out.

TRL 1.16 has no way to train on recorded completions with the correction that they need, so two of
its private methods are overridden (the version is pinned, and a contract test holds their form):
``_prepare_inputs`` hands out the recorded tensors, ``_generate_and_score_completions`` must never
run. The loss is TRL's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler, SequentialSampler
from trl import GRPOTrainer

from selfemo_jobs.train.batches import Completion, Step

#: What :func:`collate` makes of a micro-batch.
Tensors = dict[str, torch.Tensor]


def collate(completions: Sequence[Completion], pad: int) -> Tensors:
    """Return a micro-batch's tensors: prompts padded on the left, completions on the right.

    Returns
    -------
    dict
        `prompt_ids`, `prompt_mask` of shape (B, P); `completion_ids`, `completion_mask`,
        `sampling_per_token_logps` of shape (B, T); `advantages` of shape (B,), each times how often
        its completion came.
    """
    if not completions:  # nothing to read: one token that counts for nothing keeps ranks in step
        return {**collate([Completion((pad,), (pad,), (0.0,), 0.0)], pad), "empty": torch.ones(1)}
    width = max(len(c.prompt_ids) for c in completions)
    height = max(len(c.completion_ids) for c in completions)
    shape_p, shape_c = (len(completions), width), (len(completions), height)
    out = {
        "prompt_ids": torch.full(shape_p, pad),
        "prompt_mask": torch.zeros(shape_p, dtype=torch.long),
        "completion_ids": torch.full(shape_c, pad),
        "completion_mask": torch.zeros(shape_c, dtype=torch.long),
        "sampling_per_token_logps": torch.zeros(shape_c),
    }
    for row, c in enumerate(completions):
        p, t = len(c.prompt_ids), len(c.completion_ids)
        out["prompt_ids"][row, width - p :] = torch.tensor(c.prompt_ids)
        out["prompt_mask"][row, width - p :] = 1
        out["completion_ids"][row, :t] = torch.tensor(c.completion_ids)
        out["completion_mask"][row, :t] = 1
        out["sampling_per_token_logps"][row, :t] = torch.tensor(c.logprobs)
    out["advantages"] = torch.tensor([c.advantage * c.count for c in completions])
    return out


def corrected_advantages(
    advantages: torch.Tensor, old: torch.Tensor, recorded: torch.Tensor, cap: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return per-token advantages with the truncated importance weight, and the weight.

    ``w_t = min(exp(log pi_old - log mu), cap)``, where mu is what self-play sampled from. Since w is
    positive, weighting the advantage weights the clipped loss:
    ``min(rho A w, clip(rho) A w) = w min(rho A, clip(rho) A)``.

    Parameters
    ----------
    advantages
        Shape (B,).
    old, recorded
        Shape (B, T): log-probabilities of the training stack before its first step, and recorded.
    cap
        `training.importanceCap`.

    References
    ----------
    Truncated importance sampling, Ionides 2008; for the gap between a sampler and a trainer of one
    policy as in TRL's and SkyRL's token-level correction.
    """
    weight = torch.exp(old - recorded).clamp(max=cap)
    return advantages.unsqueeze(1) * weight, weight


class SelfGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer over fixed steps of recorded completions.

    Parameters
    ----------
    steps
        All optimiser steps.
    rank
        This process.
    importance_cap
        `training.importanceCap`.
    kl_beta
        Weight of the KL to the anchor, whose log-probabilities come with `reference`.
    """

    def __init__(
        self, *, steps: Sequence[Step], rank: int, importance_cap: float, kl_beta: float, **trl: Any
    ) -> None:
        super().__init__(reward_funcs=_no_reward, **trl)
        self.beta = kl_beta  # after TRL's own set-up, which would load a second model for it
        self._steps = steps
        self._rank = rank
        self._cap = importance_cap
        self._pad = self.processing_class.pad_token_id
        self.old_logps: list[torch.Tensor] = []
        """Of this process, by step and accumulation step; shape (B, T) each."""
        self.reference_logps: list[torch.Tensor] = []

    def micro_batch(self, index: int) -> Tensors:
        """Return one of this process's micro-batches on its device, by its place in the run."""
        step, micro = divmod(index, self.args.gradient_accumulation_steps)
        tensors = collate(self._steps[step].micro_batches[self._rank][micro], self._pad)
        return {name: value.to(self.accelerator.device) for name, value in tensors.items()}

    @property
    def micro_batches(self) -> int:
        """Micro-batches of this process in the whole run."""
        return len(self._steps) * int(self.args.gradient_accumulation_steps)

    @torch.no_grad()
    def logps(self, model: torch.nn.Module) -> list[torch.Tensor]:
        """Return a model's log-probabilities of all of this process's micro-batches.

        Every process reads as many micro-batches, as ZeRO-3's gathers need.
        """
        mode = model.training
        model.eval()
        found = []
        for index in range(self.micro_batches):
            tensors = self.micro_batch(index)
            found.append(self._read(model, tensors).cpu())
        model.train(mode)
        return found

    def _read(self, model: torch.nn.Module, tensors: Tensors) -> torch.Tensor:
        ids = torch.cat([tensors["prompt_ids"], tensors["completion_ids"]], dim=1)
        mask = torch.cat([tensors["prompt_mask"], tensors["completion_mask"]], dim=1)
        logps: torch.Tensor = self._get_per_token_logps_and_entropies(
            model, ids, mask, tensors["completion_ids"].size(1)
        )[0]
        return logps

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return a loader of place-holders, one for each micro-batch of each process, in order."""
        loader: DataLoader[Any] = self._get_dataloader(
            dataset=self.train_dataset,
            description="Training",
            batch_size=1,
            sampler_fn=self._get_train_sampler,
            is_training=True,
        )
        return loader

    def _get_train_sampler(self, dataset: Any = None) -> Sampler[int]:
        return SequentialSampler(dataset if dataset is not None else self.train_dataset)

    def _prepare_inputs(self, generation_batch: list[dict[str, int]]) -> Tensors:
        step = generation_batch[0]["step"]
        accumulation = int(self.args.gradient_accumulation_steps)
        index = step * accumulation + self._step % accumulation
        tensors = self.micro_batch(index)
        old = self.old_logps[index].to(self.accelerator.device)
        advantages, weight = corrected_advantages(
            tensors["advantages"], old, tensors["sampling_per_token_logps"], self._cap
        )
        mask = tensors["completion_mask"]
        if "empty" in tensors:
            mask = torch.zeros_like(mask)
        mean = (weight * mask).sum() / mask.sum().clamp(min=1)
        self._metrics["train"]["importance/mean"].append(mean.item())
        out = {
            **{k: tensors[k] for k in ("prompt_ids", "prompt_mask", "completion_ids")},
            "completion_mask": mask,
            "advantages": advantages,
            "old_per_token_logps": old,
            "num_items_in_batch": torch.tensor(
                float(self._steps[step].tokens), device=self.accelerator.device
            ),
        }
        if self.beta:
            out["ref_per_token_logps"] = self.reference_logps[index].to(self.accelerator.device)
        return out

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        raise AssertionError("SELF-GRPO trains on recorded completions: nothing is generated")

    def create_model_card(self, *_arguments: Any, **_named: Any) -> None:
        """Write none: the manifest is the model's record."""


def _no_reward(**_columns: Any) -> list[float]:
    raise AssertionError("SELF-GRPO's rewards are recorded: none is computed in training")
