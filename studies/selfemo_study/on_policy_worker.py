"""The training process of the row kind `on-policy`; see :mod:`selfemo_study.on_policy_rows`."""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfemo_api.seeds import stage_seed
from selfemo_api.spec import EvolutionSpec, Precision, RewardSpec, Role
from selfemo_api.stages import Stage
from selfemo_api.text.files import write_atomically
from selfemo_jobs.engines import open_engine
from selfemo_jobs.engines.interface import Sampling
from selfemo_jobs.prompts import load_prompt_set, parse_labels
from selfemo_jobs.rewards import (
    RewardTerms,
    Verdict,
    consensus,
    encode_label_sets,
    recognizer_rewards,
)
from selfemo_jobs.runtime.parent_death import die_with_parent
from selfemo_jobs.stages.selfplay.episodes import plan_episodes
from selfemo_jobs.stages.selfplay.self_player import PromptRequest, SelfPlayer, initial_state
from selfemo_jobs.stages.selfplay.stage import read_sources
from selfemo_jobs.store.volumes import local_path
from selfemo_study.on_policy_rows import OnPolicyJob, OnPolicyPoint

if TYPE_CHECKING:
    from selfemo_jobs.engines.interface import TextEngine

log = logging.getLogger(__name__)


def main() -> int:
    """Run the process and return its exit code."""
    die_with_parent()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    parser = argparse.ArgumentParser(prog="python -m selfemo_study.on_policy_worker")
    parser.add_argument("--config", required=True, type=Path, help="JSON of an OnPolicyJob")
    job = OnPolicyJob.model_validate_json(parser.parse_args().config.read_bytes())
    points = train(job)
    write_atomically(
        job.output / "points.json", json.dumps([p.to_json() for p in points], indent=1)
    )
    return 0


def train(job: OnPolicyJob) -> list[OnPolicyPoint]:
    """Train and return what was kept on the way."""
    import torch
    from datasets import Dataset
    from trl import GRPOTrainer

    from selfemo_jobs.acceleration.bf16_emulation import bfloat16_products
    from selfemo_jobs.acceleration.prefix_packing import scored_places_only
    from selfemo_jobs.models.fetch import load_model, load_tokenizer
    from selfemo_jobs.models.trained_layers import train_last_layers

    spec = job.spec
    clock = Clock()
    rows = asked_prompts(job)
    tokenizer = load_tokenizer(job.policy)
    model = load_model(job.policy, torch.float32)
    if spec.training.train_layers is not None:
        train_last_layers(model, spec.training.train_layers)
    model.generation_config.eos_token_id = ending_tokens(tokenizer, spec)
    keeper = _keeper(job, clock)
    trainer = GRPOTrainer(
        model=model,
        processing_class=tokenizer,
        args=arguments(job),
        train_dataset=Dataset.from_list(rows),
        reward_funcs=reward_function(spec, model.generation_config.eos_token_id),
        callbacks=[keeper],
    )
    # as on a GPU, and as the evolution's own training: else prompts take nine tenths of the time
    with scored_places_only(), bfloat16_products(spec.training.bfloat16_products):
        trainer.train()
    points: list[OnPolicyPoint] = keeper.points
    return points


class Clock:
    """Seconds of work; it stands still while something is written."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._still = 0.0

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self._began - self._still

    def leave_out(self, seconds: float) -> None:
        """Take off seconds that were no work."""
        self._still += seconds


def asked_prompts(job: OnPolicyJob) -> list[dict[str, Any]]:
    """Return the recognizer's prompts with the judge's readings of each, as many as are needed.

    They are drawn as the evolution draws them, generation by generation, and gold labels come with
    them where the evolution may read those.
    """
    spec = job.spec
    wanted = job.steps * (spec.training.batch_size // spec.self_play.group_size)
    longest = spec.model.max_prompt_tokens + max(
        spec.self_play.max_tokens.recognizer, spec.reading_tokens
    )
    engine = open_engine(
        spec.self_play.engine,
        job.policy,
        engine_args=spec.self_play.engine_args,
        max_model_len=longest,
        seed=spec.seed,
    )
    try:
        asks = _asks(engine, spec, wanted)
        readings = _readings(engine, spec, asks)
    finally:
        engine.close()
    texts = [engine.tokenizer.decode(ask.prompt_ids) for ask in asks]
    rows = [
        {"prompt": text, "readings": read, "gold": ask.gold_labels}
        for text, ask, read in zip(texts, asks, readings, strict=True)
        if tuple(engine.tokenizer(text)["input_ids"])
        == ask.prompt_ids  # TRL reads text, not tokens
    ]
    if len(rows) < len(asks):
        log.warning("%d prompts are no text of their own: left out", len(asks) - len(rows))
    return rows


def _asks(engine: TextEngine, spec: EvolutionSpec, wanted: int) -> list[PromptRequest]:
    labels = spec.dataset.labels
    sources = read_sources(spec, local_path)
    found: list[PromptRequest] = []
    generation = 0
    while len(found) < wanted:
        generation += 1
        player = SelfPlayer(engine, spec, generation)
        seed = stage_seed(spec.seed, generation, Stage.SELF_PLAY)
        episodes = plan_episodes(sources, spec.self_play, labels, seed)
        found += [player.recognizer_request(initial_state(episode), 0) for episode in episodes]
    return found[:wanted]


def _readings(
    engine: TextEngine, spec: EvolutionSpec, asks: Sequence[PromptRequest]
) -> list[list[list[str]]]:
    """Return what generation 0 reads of each target: `recognizer.samples` label sets a view."""
    sampling = Sampling(
        n=spec.reward.judge.samples,
        temperature=spec.self_play.temperature,
        top_p=spec.self_play.top_p,
        max_tokens=spec.reading_tokens,
        stop=load_prompt_set(spec.model.prompts).stop(Role.RECOGNIZER),
        seed=spec.seed,
    )
    labels = spec.dataset.labels
    views = [ask.judge_prompts or (ask.prompt_ids,) for ask in asks]
    prompts = list(dict.fromkeys(prompt for its in views for prompt in its))
    completions = engine.generate(prompts, sampling)
    read = {
        prompt: [list(parse_labels(c.text, labels).labels) for c in group]
        for prompt, group in zip(prompts, completions, strict=True)
    }
    return [[labels for prompt in its for labels in read[prompt]] for its in views]


def ending_tokens(tokenizer: Any, spec: EvolutionSpec) -> list[int]:
    """Return the tokens at which an answer ends: the end token, and those with a stop in them."""
    stops = load_prompt_set(spec.model.prompts).stop(Role.RECOGNIZER)
    texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
    found = {i for i, text in enumerate(texts) if any(stop in text for stop in stops)}
    return sorted({tokenizer.eos_token_id, *found})


def reward_function(spec: EvolutionSpec, ends: Sequence[int]) -> Any:
    """Return the product's own recognizer reward as TRL asks for it."""
    ending = frozenset(ends)

    def understanding_reward(
        completions: list[str],
        completion_ids: list[list[int]],
        readings: list[list[list[str]]],
        gold: list[list[str]],
        **_: Any,
    ) -> list[float]:
        finished = [ids[-1] in ending for ids in completion_ids]
        stops = load_prompt_set(spec.model.prompts).stop(Role.RECOGNIZER)
        return rewards(completions, finished, readings, gold, stops, spec)

    return understanding_reward


def rewards(
    completions: Sequence[str],
    finished: Sequence[bool],
    readings: Sequence[Sequence[Sequence[str]]],
    gold: Sequence[Sequence[str]],
    stops: Sequence[str],
    spec: EvolutionSpec,
) -> list[float]:
    """Return the reward of each completion; groups stand together, each with its readings.

    A group's truth is its gold labels, where it has any, or else its vote. One without either gets
    0 throughout: it then has no advantage, as if dropped.
    """
    reward: RewardSpec = spec.reward
    labels, group = spec.dataset.labels, spec.self_play.group_size
    parsed = [parse_labels(_cut(text, stops), labels) for text in completions]
    members = encode_label_sets([p.labels for p in parsed], labels).reshape(-1, group)
    formed = [p.well_formed and end for p, end in zip(parsed, finished, strict=True)]
    samples = [encode_label_sets(read, labels) for read in readings[::group]]
    vote = consensus(
        members,
        np.stack(samples) if reward.judge.weight > 0 else None,
        num_labels=len(labels),
        threshold=reward.consensus,
        judge_weight=reward.judge.weight,
    )
    well_formed = np.array(formed).reshape(-1, group)
    known = encode_label_sets(gold[::group], labels)
    truth = np.where(known != 0, known, vote.masks)
    found = recognizer_rewards(members, well_formed, truth, RewardTerms.from_spec(reward)).reward
    found[(vote.verdicts != Verdict.AGREED) & (known == 0)] = 0.0
    flat: list[float] = found.ravel().tolist()
    return flat


def _cut(text: str, stops: Sequence[str]) -> str:
    return text[: min((place for s in stops if (place := text.find(s)) >= 0), default=len(text))]


def arguments(job: OnPolicyJob) -> Any:
    """Return TRL's arguments: the evolution's own settings wherever both have them."""
    from trl import GRPOConfig

    from selfemo_jobs.stages.train.training_loop import SCHEDULES

    training, play = job.spec.training, job.spec.self_play
    return GRPOConfig(
        output_dir=str(job.output / "trl"),
        use_cpu=training.gpus_per_node == 0,
        bf16=training.precision is Precision.BFLOAT16,
        per_device_train_batch_size=training.micro_batch_size,
        gradient_accumulation_steps=training.batch_size // training.micro_batch_size,
        num_generations=play.group_size,
        max_completion_length=play.max_tokens.recognizer,
        temperature=play.temperature,
        top_p=play.top_p,
        max_steps=job.steps,
        learning_rate=training.learning_rate,
        lr_scheduler_type=SCHEDULES[training.schedule],
        warmup_steps=math.ceil(training.warmup_ratio * job.steps),
        max_grad_norm=training.max_grad_norm,
        loss_type="dapo",
        epsilon=training.clip.low,
        epsilon_high=training.clip.high,
        beta=0.0,
        gradient_checkpointing=training.gradient_checkpointing,
        seed=job.spec.seed,
        shuffle_dataset=False,
        dataloader_pin_memory=False,
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        report_to="none",
    )


def _keeper(job: OnPolicyJob, clock: Clock) -> Any:
    from transformers import TrainerCallback

    from selfemo_jobs.stages.train.model_export import write_model

    class Keeper(TrainerCallback):  # type: ignore[misc]
        """Keeps the model after some of the steps."""

        def __init__(self) -> None:
            self.points: list[OnPolicyPoint] = []

        def on_step_end(self, _args: Any, state: Any, _control: Any, **given: Any) -> None:
            """Write the model, its time left out."""
            step = int(state.global_step)
            if step not in job.keep:
                return
            self.points.append(OnPolicyPoint(step=step, seconds=round(clock.seconds, 3)))
            began = time.monotonic()
            model = given["model"]
            folder = job.output / "models" / f"step-{step:06d}"
            folder.parent.mkdir(exist_ok=True)
            write_model(model, model.state_dict(), job.policy, folder)
            clock.leave_out(time.monotonic() - began)

    return Keeper()


if __name__ == "__main__":
    sys.exit(main())
