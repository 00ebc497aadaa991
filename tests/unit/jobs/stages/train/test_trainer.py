"""The loss compared with one in plain PyTorch, and the private API of TRL that is used."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trl
from datasets import Dataset
from tests.unit.jobs.stages.train.kept_tables import consensus_of, kept_table
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from selfemo_api.spec import TrainingSpec
from selfemo_jobs.stages.train.batches import PADDING, BatchShape, TrainingStep, plan_steps
from selfemo_jobs.stages.train.loss import loss_arguments
from selfemo_jobs.stages.train.rollout_data import (
    RolloutData,
    add_imitation_rows,
    add_response_rows,
    training_columns,
)
from selfemo_jobs.stages.train.rollout_files import read_responses, write_responses
from selfemo_jobs.stages.train.step_sampler import StepSampler
from selfemo_jobs.stages.train.trainer import SelfGRPOTrainer

LOW, HIGH, CAP, BETA, TEMPERATURE = 0.2, 0.28, 1.5, 0.04, 0.8
TRAINING = TrainingSpec.model_validate({"clip": {"low": LOW, "high": HIGH}})


class Bench:
    """A trainer without an engine. Its log-probabilities reach every branch of the loss."""

    def __init__(
        self,
        model: Path,
        output: Path,
        *,
        pack: bool,
        kl_beta: float,
        imitation: float = 0.0,
        response: float = 0.0,
    ) -> None:
        table = training_columns([kept_table(model, 5, 4, drift=0.6)])
        self.rollouts = RolloutData.from_table(table)
        if imitation:
            consensus = consensus_of(table, self.rollouts)
            self.rollouts = add_imitation_rows(self.rollouts, consensus, lambda _: [7, 8, 9])
        if response:
            turns = [([11, 12, 13 + i], [21, 22, 23, 24 + i][i:]) for i in range(4)]
            output.mkdir(parents=True, exist_ok=True)
            write_responses(turns, output)
            self.rollouts = add_response_rows(self.rollouts, *read_responses(output))
        self.imitation, self.response = imitation, response
        self.steps = plan_steps(
            self.rollouts.groups,
            self.rollouts.prompts.lengths.tolist(),
            self.rollouts.completions.lengths.tolist(),
            BatchShape(8, 4, 1),
            epochs=1,
            seed=0,
            imitated=set(np.flatnonzero(self.rollouts.imitated).tolist()),
            responses=self.rollouts.responses,
        )
        arguments = GRPOConfig(
            output_dir=str(output),
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            num_generations=4,
            **loss_arguments(TRAINING, TEMPERATURE),
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            report_to="none",
        )
        self.trainer = SelfGRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
            processing_class=AutoTokenizer.from_pretrained(model),
            args=arguments,
            train_dataset=Dataset.from_dict({"row": list(range(len(self.rollouts) + 1))}),
            rollouts=self.rollouts,
            steps=self.steps,
            kl_beta=kl_beta,
            imitation=imitation,
            response_weight=response,
        )
        self.trainer._can_pack = self.trainer._can_pack and pack
        self.trainer.current_gradient_accumulation_steps = 2
        generator = np.random.default_rng(1)
        measured = self.trainer.compute_logprobs(self.trainer.model)
        moved = generator.normal(0.0, 0.4, measured.shape).astype(np.float32)
        self.old = measured + moved  # as after some steps: the ratio is not 1
        self.reference = measured + np.roll(moved, 1)
        self.trainer.set_logprobs(self.old, self.reference if kl_beta else None, CAP)
        self.trainer.model.train()

    def step_loss(self, number: int) -> torch.Tensor:
        self.trainer.state.global_step = number
        share = [i for p in self.steps[number].micro_batches[0] for i in p]
        batch = [{"row": len(self.rollouts) if r == PADDING else r} for r in share]
        losses = []
        for index in range(2):
            self.trainer._step = index
            inputs = self.trainer._prepare_inputs(batch)
            losses.append(self.trainer._compute_loss(self.trainer.model, inputs))
        return torch.stack(losses).sum()

    def expected_loss(self, number: int, kl_beta: float) -> torch.Tensor:
        """Return the loss of SELF-GRPO, computed for one completion after the other."""
        total, tokens = torch.zeros(()), 0
        cross_entropy, imitated = torch.zeros(()), 0
        of_responses, response_tokens = torch.zeros(()), 0
        for row in (r for p in self.steps[number].micro_batches[0] for r in p if r != PADDING):
            prompt, completion = (
                self.rollouts.prompts[row].tolist(),
                self.rollouts.completions[row].tolist(),
            )
            logits = unpacked_logits(self.trainer.model, torch.tensor([prompt + completion]))
            chosen = torch.log_softmax(logits[0, len(prompt) - 1 : -1] / TEMPERATURE, -1)
            new = chosen.gather(1, torch.tensor(completion).unsqueeze(1)).squeeze(1)
            if row in self.rollouts.responses:
                of_responses = of_responses - new.sum()
                response_tokens += len(completion)
                continue
            if self.rollouts.imitated[row]:
                cross_entropy, imitated = cross_entropy - new.sum(), imitated + len(completion)
                continue
            part = slice(
                self.rollouts.completions.offsets[row], self.rollouts.completions.offsets[row + 1]
            )
            old, reference = torch.tensor(self.old[part]), torch.tensor(self.reference[part])
            sampled = torch.tensor(self.rollouts.logprobs.values[part])
            advantage = float(self.rollouts.advantages[row])
            ratio = (new - old).exp()
            clipped = ratio.clamp(1 - LOW, 1 + HIGH)
            weight = (old - sampled).exp().clamp(max=CAP)
            loss = -torch.minimum(ratio * advantage, clipped * advantage) * weight
            if kl_beta:
                gap = reference - new
                loss = loss + kl_beta * (gap.exp() - gap - 1) * ratio
            total, tokens = total + loss.sum(), tokens + len(completion)
        imitation = self.imitation * cross_entropy / max(imitated, 1)
        responses = self.response * of_responses / max(response_tokens, 1)
        return total / max(tokens, 1) + imitation + responses


def unpacked_logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=ids).logits
    return logits


@pytest.mark.parametrize(
    ("pack", "kl_beta", "imitation", "response"),
    [
        *((True, 0.0, 0.0, 0.0), (True, BETA, 0.0, 0.0), (False, BETA, 0.0, 0.0)),
        *((True, BETA, 0.7, 0.0), (False, 0.0, 2.0, 0.0), (True, 0.0, 0.7, 0.3)),
    ],
)
def test_loss_and_gradients_equal_those_in_plain_pytorch(
    tiny_model: Path, tmp_path: Path, pack: bool, kl_beta: float, imitation: float, response: float
) -> None:
    bench = Bench(
        tiny_model, tmp_path, pack=pack, kl_beta=kl_beta, imitation=imitation, response=response
    )
    model = bench.trainer.model
    for number in (0, len(bench.steps) - 1):  # the last has padding
        actual = bench.step_loss(number)
        actual.backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
        model.zero_grad()
        expected = bench.expected_loss(number, kl_beta)
        expected.backward()
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
        for name, gradient in gradients.items():
            torch.testing.assert_close(
                gradient, model.get_parameter(name).grad, rtol=1e-3, atol=1e-5
            )
        model.zero_grad()
    metrics = bench.trainer._metrics["train"]
    assert max(metrics["clip_ratio/low_mean"]) > 0
    assert max(metrics["clip_ratio/high_mean"]) > 0
    capped = bench.trainer.importance_weights == np.float32(CAP)
    assert 0 < capped.mean() < 1
    assert any(r == PADDING for p in bench.steps[-1].micro_batches[0] for r in p)


@pytest.mark.parametrize("kl_beta", [0.0, BETA])
def test_imitated_tokens_that_were_all_but_impossible_leave_the_loss_finite(
    tiny_model: Path, tmp_path: Path, kl_beta: float
) -> None:
    bench = Bench(tiny_model, tmp_path, pack=True, kl_beta=kl_beta, imitation=0.7)
    model = bench.trainer.model
    usual = bench.step_loss(0)
    usual.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    offsets = bench.rollouts.completions.offsets
    for row in np.flatnonzero(bench.rollouts.imitated):
        tokens = slice(offsets[row], offsets[row + 1])
        # the policy has learned them since; the reference is as far above a policy that lost them
        bench.old[tokens], bench.reference[tokens] = -200.0, 200.0
    bench.trainer.set_logprobs(bench.old, bench.reference if kl_beta else None, CAP)
    loss = bench.step_loss(0)
    assert torch.equal(loss, usual)
    loss.backward()
    assert all(torch.equal(p.grad, gradients[n]) for n, p in model.named_parameters())


def test_a_step_of_imitated_responses_alone_has_their_loss(
    tiny_model: Path, tmp_path: Path
) -> None:
    bench = Bench(tiny_model, tmp_path, pack=True, kl_beta=BETA, imitation=0.7, response=0.3)
    rows = sorted(bench.rollouts.responses)
    tokens = int(bench.rollouts.completions.lengths[rows].sum())
    parts = ((*rows[:2], PADDING, PADDING), (*rows[2:], PADDING, PADDING))
    bench.steps = bench.trainer._steps = [TrainingStep(0, (parts,), 0, response_tokens=tokens)]
    loss = bench.step_loss(0)
    assert loss.item() > 0
    torch.testing.assert_close(loss, bench.expected_loss(0, BETA), rtol=1e-5, atol=1e-6)


def test_before_the_first_step_the_ratio_is_1(tiny_model: Path, tmp_path: Path) -> None:
    bench = Bench(tiny_model, tmp_path, pack=True, kl_beta=0.0)
    trainer = bench.trainer
    trainer.set_logprobs(trainer.compute_logprobs(trainer.model), None, CAP)
    bench.step_loss(0)
    assert not any(trainer._metrics["train"]["clip_ratio/region_mean"])
    batch = [{"row": r} for r in bench.steps[0].micro_batches[0][0]]
    inputs = trainer._generate_and_score_completions(batch)
    now, _, _ = trainer._get_per_token_logps_and_entropies(
        trainer.model,
        torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1),
        torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1),
        inputs["completion_ids"].size(1),
    )
    assert torch.equal(now.detach(), inputs["old_per_token_logps"])


def test_the_sampler_yields_the_share_of_each_process() -> None:
    step = TrainingStep(0, (((1, 2), (3, 4)), ((5, 6), (7, PADDING))), 10)
    sampler = StepSampler([step], padding=99)
    indices = list(sampler)
    assert len(indices) == len(sampler) == 16
    # the shares of four rows go to the processes in turn, once for each micro-batch
    assert [indices[i : i + 4] for i in range(0, 16, 4)] == [[1, 2, 3, 4], [5, 6, 7, 99]] * 2


def test_trl_is_the_version_that_the_trainer_was_written_for() -> None:
    assert trl.__version__ == "1.16.0"
    names = {
        "_get_train_sampler": ["self", "dataset"],
        "_prepare_inputs": ["self", "generation_batch"],
        "_generate_and_score_completions": ["self", "inputs"],
        "_compute_loss": ["self", "model", "inputs"],
    }
    for name, parameters in names.items():
        assert list(inspect.signature(getattr(GRPOTrainer, name)).parameters) == parameters
    logps = inspect.signature(GRPOTrainer._get_per_token_logps_and_entropies).parameters
    assert list(logps)[:8] == [
        "self",
        "model",
        "input_ids",
        "attention_mask",
        "logits_to_keep",
        "batch_size",
        "compute_entropy",
        "compute_aux_loss",
    ]
    assert GRPOTrainer.loss_is_scaled_for_ga  # otherwise gradients would be divided twice
    source = inspect.getsource(GRPOTrainer._compute_loss)
    for used in (
        "advantages",
        "old_per_token_logps",
        "ref_per_token_logps",
        "num_items_in_batch",
        "tool_mask",
    ):
        assert f'"{used}"' in source


def test_recorded_rollouts_are_used_and_nothing_is_generated(
    tiny_model: Path, tmp_path: Path
) -> None:
    bench = Bench(tiny_model, tmp_path, pack=True, kl_beta=0.0)
    rollouts: RolloutData = bench.rollouts
    inputs = bench.trainer._generate_and_score_completions([{"row": 3}, {"row": len(rollouts)}])
    size = rollouts.completions.lengths[3]
    assert inputs["completion_ids"][0, :size].tolist() == rollouts.completions[3].tolist()
    assert inputs["prompt_ids"][0].tolist() == rollouts.prompts[3].tolist()
    assert inputs["completion_mask"].sum(1).tolist() == [size, 0]
    assert inputs["advantages"][1].tolist() == [0.0] * int(size)
