"""The loss, against one written out by hand; and what the trainer relies on in TRL."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trl
from datasets import Dataset
from tests.unit.jobs.stages.train.kept import kept_table
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from selfemo_jobs.stages.train.batches import PADDING, Shape, Step, plan_steps
from selfemo_jobs.stages.train.rollout_data import Recorded, kept_columns, recorded, with_answers
from selfemo_jobs.stages.train.trainer import SelfGRPOTrainer, StepSampler, importance_weights

LOW, HIGH, CAP, BETA, TEMPERATURE = 0.2, 0.28, 1.5, 0.04, 0.8


class Bench:
    """A trainer without an engine, with log-probabilities that make every branch matter."""

    def __init__(
        self, model: Path, output: Path, *, pack: bool, kl_beta: float, imitation: float = 0.0
    ) -> None:
        table = kept_columns([kept_table(model, 5, 4, drift=0.6)])
        self.rows = recorded(table)
        if imitation:
            self.rows = with_answers(self.rows, table, lambda _: [7, 8, 9])
        self.imitation = imitation
        self.steps = plan_steps(
            self.rows.groups,
            self.rows.prompts.lengths.tolist(),
            self.rows.completions.lengths.tolist(),
            Shape(8, 4, 1),
            epochs=1,
            seed=0,
            imitated=set(np.flatnonzero(self.rows.imitated).tolist()),
        )
        arguments = GRPOConfig(
            output_dir=str(output),
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            num_generations=4,
            loss_type="dapo",
            epsilon=LOW,
            epsilon_high=HIGH,
            beta=0.0,
            use_bias_correction_kl=True,
            temperature=TEMPERATURE,
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            report_to="none",
        )
        self.trainer = SelfGRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
            processing_class=AutoTokenizer.from_pretrained(model),
            args=arguments,
            train_dataset=Dataset.from_dict({"row": list(range(len(self.rows) + 1))}),
            rows=self.rows,
            steps=self.steps,
            kl_beta=kl_beta,
            imitation=imitation,
        )
        self.trainer._packs = self.trainer._packs and pack
        self.trainer.current_gradient_accumulation_steps = 2
        chance = np.random.default_rng(1)
        measured = self.trainer.measure_logprobs(self.trainer.model)
        moved = chance.normal(0.0, 0.4, measured.shape).astype(np.float32)
        self.old = measured + moved  # as after some steps: the ratio is not 1
        self.reference = measured + np.roll(moved, 1)
        self.trainer.use_logprobs(self.old, self.reference if kl_beta else None, CAP)
        self.trainer.model.train()

    def step_loss(self, number: int) -> torch.Tensor:
        self.trainer.state.global_step = number
        share = [i for p in self.steps[number].passes[0] for i in p]
        batch = [{"row": len(self.rows) if r == PADDING else r} for r in share]
        losses = []
        for index in range(2):
            self.trainer._step = index
            inputs = self.trainer._prepare_inputs(batch)
            losses.append(self.trainer._compute_loss(self.trainer.model, inputs))
        return torch.stack(losses).sum()

    def expected_loss(self, number: int, kl_beta: float) -> torch.Tensor:
        """SELF-GRPO, a completion after the other."""
        total, tokens = torch.zeros(()), 0
        surprise, answers = torch.zeros(()), 0
        for row in (r for p in self.steps[number].passes[0] for r in p if r != PADDING):
            prompt, said = self.rows.prompts[row].tolist(), self.rows.completions[row].tolist()
            logits = original(self.trainer.model, torch.tensor([prompt + said]))
            chosen = torch.log_softmax(logits[0, len(prompt) - 1 : -1] / TEMPERATURE, -1)
            new = chosen.gather(1, torch.tensor(said).unsqueeze(1)).squeeze(1)
            if self.rows.imitated[row]:
                surprise, answers = surprise - new.sum(), answers + len(said)
                continue
            part = slice(self.rows.completions.offsets[row], self.rows.completions.offsets[row + 1])
            old, reference = torch.tensor(self.old[part]), torch.tensor(self.reference[part])
            sampled = torch.tensor(self.rows.logprobs.values[part])
            advantage = float(self.rows.advantages[row])
            ratio = (new - old).exp()
            clipped = ratio.clamp(1 - LOW, 1 + HIGH)
            weight = (old - sampled).exp().clamp(max=CAP)
            loss = -torch.minimum(ratio * advantage, clipped * advantage) * weight
            if kl_beta:
                gap = reference - new
                loss = loss + kl_beta * (gap.exp() - gap - 1) * ratio
            total, tokens = total + loss.sum(), tokens + len(said)
        return total / tokens + self.imitation * surprise / max(answers, 1)


def original(model: Any, ids: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=ids).logits
    return logits


@pytest.mark.parametrize(
    ("pack", "kl_beta", "imitation"),
    [(True, 0.0, 0.0), (True, BETA, 0.0), (False, BETA, 0.0), (True, BETA, 0.7), (False, 0.0, 2.0)],
)
def test_loss_and_gradients_equal_those_written_out(
    tiny_model: Path, tmp_path: Path, pack: bool, kl_beta: float, imitation: float
) -> None:
    bench = Bench(tiny_model, tmp_path, pack=pack, kl_beta=kl_beta, imitation=imitation)
    model = bench.trainer.model
    for number in (0, len(bench.steps) - 1):  # the last has padding
        found = bench.step_loss(number)
        found.backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
        model.zero_grad()
        expected = bench.expected_loss(number, kl_beta)
        expected.backward()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        for name, gradient in gradients.items():
            torch.testing.assert_close(
                gradient, model.get_parameter(name).grad, rtol=1e-3, atol=1e-5
            )
        model.zero_grad()
    metrics = bench.trainer._metrics["train"]
    assert max(metrics["clip_ratio/low_mean"]) > 0
    assert max(metrics["clip_ratio/high_mean"]) > 0
    capped = bench.trainer.weights == np.float32(CAP)
    assert 0 < capped.mean() < 1
    assert any(r == PADDING for p in bench.steps[-1].passes[0] for r in p)


def test_before_the_first_step_the_ratio_is_one(tiny_model: Path, tmp_path: Path) -> None:
    bench = Bench(tiny_model, tmp_path, pack=True, kl_beta=0.0)
    trainer = bench.trainer
    trainer.use_logprobs(trainer.measure_logprobs(trainer.model), None, CAP)
    bench.step_loss(0)
    assert not any(trainer._metrics["train"]["clip_ratio/region_mean"])
    batch = [{"row": r} for r in bench.steps[0].passes[0][0]]
    inputs = trainer._generate_and_score_completions(batch)
    now, _, _ = trainer._get_per_token_logps_and_entropies(
        trainer.model,
        torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1),
        torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1),
        inputs["completion_ids"].size(1),
    )
    assert torch.equal(now.detach(), inputs["old_per_token_logps"])


def test_importance_weights_are_capped() -> None:
    old = np.array([0.0, -1.0, -2.0, 500.0], np.float32)
    sampled = np.array([-0.5, -1.0, -1.0, -500.0], np.float32)
    found = importance_weights(old, sampled, 1.5)
    assert found.tolist() == pytest.approx([1.5, 1.0, math.exp(-1.0), 1.5])


def test_the_sampler_gives_each_process_its_share() -> None:
    step = Step(0, (((1, 2), (3, 4)), ((5, 6), (7, PADDING))), 10)
    sampler = StepSampler([step], padding=99)
    indices = list(sampler)
    assert len(indices) == len(sampler) == 16
    # batches of four go to the processes in turn, once for each pass
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
    assert GRPOTrainer.loss_is_scaled_for_ga  # else gradients would be divided twice
    source = inspect.getsource(GRPOTrainer._compute_loss)
    for used in (
        "advantages",
        "old_per_token_logps",
        "ref_per_token_logps",
        "num_items_in_batch",
        "tool_mask",
    ):
        assert f'"{used}"' in source


def test_recorded_groups_are_not_generated(tiny_model: Path, tmp_path: Path) -> None:
    bench = Bench(tiny_model, tmp_path, pack=True, kl_beta=0.0)
    rows: Recorded = bench.rows
    inputs = bench.trainer._generate_and_score_completions([{"row": 3}, {"row": len(rows)}])
    size = rows.completions.lengths[3]
    assert inputs["completion_ids"][0, :size].tolist() == rows.completions[3].tolist()
    assert inputs["prompt_ids"][0].tolist() == rows.prompts[3].tolist()
    assert inputs["completion_mask"].sum(1).tolist() == [size, 0]
    assert inputs["advantages"][1].tolist() == [0.0] * int(size)
