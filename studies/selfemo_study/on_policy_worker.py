"""The training process of the row kind `on-policy`: TRL's own GRPOTrainer.

Its time is compared with the evolution's. The same as in the evolution: generation 0, the
recognizer's prompts in the order in which the evolution draws them, the rewards and gold labels,
the trained layers, and the number of steps and of completions in each step.

Different: TRL generates with Transformers while it trains. Nothing is imitated. There is no
flywheel, no responder and no promotion. The judge stays generation 0. An advantage is not weighted
by the consistency of its group.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfemo_api.seeds import stage_seed
from selfemo_api.spec import EvolutionSpec, Precision, RewardSpec, Role, Schedule
from selfemo_api.stages import Stage
from selfemo_jobs.acceleration.rounded_products import checkpointing_options
from selfemo_jobs.engines import open_engine
from selfemo_jobs.engines.interface import Sampling
from selfemo_jobs.models.end_tokens import end_tokens
from selfemo_jobs.prompts import parse_labels, prompt_set_of
from selfemo_jobs.rewards import (
    RewardTerms,
    Verdict,
    consensus,
    decode_label_set,
    encode_label_sets,
    recognizer_rewards,
)
from selfemo_jobs.rewards.label_sets import apportion
from selfemo_jobs.stages.score.judge import EXACT_READINGS, exact_shares
from selfemo_jobs.stages.selfplay.dialogue_state import PromptRequest, initial_state
from selfemo_jobs.stages.selfplay.episodes import plan_episodes
from selfemo_jobs.stages.selfplay.self_player import SelfPlayer
from selfemo_jobs.stages.selfplay.stage import read_sources
from selfemo_jobs.stages.warmstart.weights import rounds_products
from selfemo_jobs.store.volumes import local_path
from selfemo_study.study_config import StudyError
from selfemo_study.worker_rows import (
    Checkpoint,
    TrainingJob,
    WorkClock,
    checkpoint_folder,
    run_worker,
)

if TYPE_CHECKING:
    from selfemo_jobs.engines.interface import TextEngine

log = logging.getLogger(__name__)


def train(job: TrainingJob) -> list[Checkpoint]:
    """Train the policy and return the checkpoints that were stored.

    Parameters
    ----------
    job
        The configuration of the training.
    """
    import torch
    from datasets import Dataset
    from trl import GRPOTrainer

    from selfemo_jobs.acceleration.prefix_packing import scored_places_only
    from selfemo_jobs.models.fetch import load_model, load_tokenizer
    from selfemo_jobs.models.trained_layers import train_last_layers
    from selfemo_jobs.stages.train.training_loop import precision_context

    spec = job.spec
    if spec.reward.consensus == 0.0:
        raise StudyError("on-policy rows require `reward.consensus` above 0: they align no votes")
    clock = WorkClock()
    rows = training_prompts(job)
    tokenizer = load_tokenizer(job.policy)
    model = load_model(job.policy, torch.float32)
    if spec.training.train_layers > 0:
        train_last_layers(model, spec.training.train_layers)
    model.generation_config.eos_token_id = answer_ends(job.policy, tokenizer, spec)
    recorder = _checkpoint_recorder(job, clock)
    trainer = GRPOTrainer(
        model=model,
        processing_class=tokenizer,
        args=arguments(job),
        train_dataset=Dataset.from_list(rows),
        reward_funcs=reward_function(spec, model.generation_config.eos_token_id),
        callbacks=[recorder],
    )
    # As on a GPU and in the evolution's own training: only completion tokens are scored. Otherwise
    # prompts would take nine tenths of the time.
    with scored_places_only(), precision_context(bfloat16_products=rounds_products(spec)):
        trainer.train()
    checkpoints: list[Checkpoint] = recorder.checkpoints
    return checkpoints


def training_prompts(job: TrainingJob) -> list[dict[str, Any]]:
    """Return as many recognizer prompts as the training needs, each with the judge's readings.

    They are drawn as the evolution draws them, generation by generation. They include the gold
    labels of the sources whose labels the evolution may read.

    Parameters
    ----------
    job
        The configuration of the training.
    """
    spec = job.spec
    count = job.steps * (spec.training.batch_size // spec.self_play.group_size)
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
        requests = _draw_requests(engine, spec, count, job.output)
        readings = _judge_readings(engine, spec, requests)
    finally:
        engine.close()
    texts = [engine.tokenizer.decode(request.prompt_ids) for request in requests]
    rows = [
        {"prompt": text, "readings": of_request, "gold": request.gold_labels}
        for text, request, of_request in zip(texts, requests, readings, strict=True)
        # TRL reads text, not tokens: the text must give the same tokens again
        if tuple(engine.tokenizer(text)["input_ids"]) == request.prompt_ids
    ]
    if len(rows) < len(requests):
        log.warning(
            "left out %d prompts whose text does not give the same tokens again",
            len(requests) - len(rows),
        )
    return rows


def _draw_requests(
    engine: TextEngine, spec: EvolutionSpec, count: int, work: Path
) -> list[PromptRequest]:
    labels = spec.dataset.labels
    sources = read_sources(spec, local_path, work)
    requests: list[PromptRequest] = []
    generation = 0
    while len(requests) < count:
        generation += 1
        player = SelfPlayer(engine, spec, generation)
        seed = stage_seed(spec.seed, generation, Stage.SELF_PLAY)
        episodes = plan_episodes(sources, spec.self_play, labels, seed)
        requests += [player.recognizer_request(initial_state(episode), 0) for episode in episodes]
    return requests[:count]


def _judge_readings(
    engine: TextEngine, spec: EvolutionSpec, requests: Sequence[PromptRequest]
) -> list[list[list[str]]]:
    """Return the label sets that generation 0 reads for each request.

    Each view of the target has `reward.judge.samples` of them. If that is 0, they stand for the
    exact probabilities of the labels.
    """
    labels = spec.dataset.labels
    views = [request.judge_prompts or (request.prompt_ids,) for request in requests]
    prompts = list(dict.fromkeys(prompt for of_request in views for prompt in of_request))
    if spec.reward.judge.samples == 0:
        masks = apportion(exact_shares(engine, spec, prompts), EXACT_READINGS)
        named = [[list(decode_label_set(int(m), labels)) for m in row] for row in masks]
        return _of_requests(views, dict(zip(prompts, named, strict=True)))
    sampling = Sampling(
        n=spec.reward.judge.samples,
        temperature=spec.self_play.temperature,
        top_p=spec.self_play.top_p,
        max_tokens=spec.reading_tokens,
        stop=prompt_set_of(spec.model).stop(Role.RECOGNIZER),
        seed=spec.seed,
    )
    completions = engine.generate(prompts, sampling)
    by_prompt = {
        prompt: [list(parse_labels(c.text, labels).labels) for c in group]
        for prompt, group in zip(prompts, completions, strict=True)
    }
    return _of_requests(views, by_prompt)


def _of_requests(
    views: Sequence[Sequence[tuple[int, ...]]],
    readings: Mapping[tuple[int, ...], list[list[str]]],
) -> list[list[list[str]]]:
    """Return the readings of each request: those of its first view, then the second, …"""
    return [
        [label_set for prompt in of_request for label_set in readings[prompt]]
        for of_request in views
    ]


def answer_ends(folder: Path, tokenizer: Any, spec: EvolutionSpec) -> list[int]:
    """Return the tokens that end an answer: those of the engines, and those with a stop string.

    Parameters
    ----------
    folder
        The policy's folder.
    tokenizer
        The policy's tokenizer.
    spec
        The evolution's spec, whose prompt set names the stop strings.
    """
    stops = prompt_set_of(spec.model).stop(Role.RECOGNIZER)
    texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
    with_stop = {i for i, text in enumerate(texts) if any(stop in text for stop in stops)}
    return sorted({*end_tokens(folder, tokenizer), *with_stop})


def reward_function(spec: EvolutionSpec, ends: Sequence[int]) -> Any:
    """Return the product's own recognizer reward as a reward function of TRL.

    Parameters
    ----------
    spec
        The evolution's spec.
    ends
        The tokens that end an answer.
    """
    end_set = frozenset(ends)

    def recognizer_reward(
        completions: list[str],
        completion_ids: list[list[int]],
        readings: list[list[list[str]]],
        gold: list[list[str]],
        **_: Any,
    ) -> list[float]:
        finished = [ids[-1] in end_set for ids in completion_ids]
        stops = prompt_set_of(spec.model).stop(Role.RECOGNIZER)
        return rewards(completions, finished, readings, gold, stops, spec)

    return recognizer_reward


def rewards(
    completions: Sequence[str],
    finished: Sequence[bool],
    readings: Sequence[Sequence[Sequence[str]]],
    gold: Sequence[Sequence[str]],
    stops: Sequence[str],
    spec: EvolutionSpec,
) -> list[float]:
    """Return the reward of each completion.

    The truth of a group is its gold labels, where it has any, and otherwise its vote. All rewards
    of a group without both are 0: it then has no advantage, as if it had been dropped.

    Parameters
    ----------
    completions
        The texts of the completions. Those of a group are adjacent.
    finished
        Whether each completion ended by itself.
    readings
        The label sets that the judge read, for each completion. They are equal within a group.
    gold
        The gold labels of each completion's target; empty where there are none.
    stops
        The stop strings of the prompt set.
    spec
        The evolution's spec.
    """
    reward: RewardSpec = spec.reward
    labels, group = spec.dataset.labels, spec.self_play.group_size
    parsed = [parse_labels(_before_stop(text, stops), labels) for text in completions]
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
    values = recognizer_rewards(members, well_formed, truth, RewardTerms.from_spec(reward)).reward
    values[(vote.verdicts != Verdict.AGREED) & (known == 0)] = 0.0
    flat: list[float] = values.ravel().tolist()
    return flat


def _before_stop(text: str, stops: Sequence[str]) -> str:
    """Return the text before the first stop string."""
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


#: Transformers' names of the learning-rate schedules.
_SCHEDULES = {Schedule.CONSTANT: "constant_with_warmup", Schedule.LINEAR: "linear"}


def arguments(job: TrainingJob) -> Any:
    """Return TRL's arguments: the evolution's own settings wherever both have them.

    Parameters
    ----------
    job
        The configuration of the training.
    """
    from trl import GRPOConfig

    training, self_play = job.spec.training, job.spec.self_play
    return GRPOConfig(
        output_dir=str(job.output / "trl"),
        use_cpu=job.spec.resources.gpus_per_node == 0,
        bf16=training.precision is Precision.BFLOAT16,
        per_device_train_batch_size=training.micro_batch_size,
        gradient_accumulation_steps=training.batch_size // training.micro_batch_size,
        num_generations=self_play.group_size,
        max_completion_length=self_play.max_tokens.recognizer,
        temperature=self_play.temperature,
        top_p=self_play.top_p,
        max_steps=job.steps,
        learning_rate=training.optimizer.learning_rate,
        lr_scheduler_type=_SCHEDULES[training.optimizer.schedule],
        warmup_steps=math.ceil(training.optimizer.warmup_ratio * job.steps),
        max_grad_norm=training.optimizer.max_grad_norm,
        loss_type="dapo",
        epsilon=training.clip.low,
        epsilon_high=training.clip.high,
        beta=0.0,
        gradient_checkpointing=training.gradient_checkpointing,
        gradient_checkpointing_kwargs=checkpointing_options(rounded=rounds_products(job.spec)),
        seed=job.spec.seed,
        shuffle_dataset=False,
        dataloader_pin_memory=False,
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        report_to="none",
    )


def _checkpoint_recorder(job: TrainingJob, clock: WorkClock) -> Any:
    from transformers import TrainerCallback

    from selfemo_jobs.models.model_export import write_model

    class CheckpointRecorder(TrainerCallback):  # type: ignore[misc]
        """Stores the model after some of the steps."""

        def __init__(self) -> None:
            self.checkpoints: list[Checkpoint] = []

        def on_step_end(self, _args: Any, state: Any, _control: Any, **arguments: Any) -> None:
            """Write the model; the time of writing is not counted."""
            step = int(state.global_step)
            if step not in job.keep:
                return
            examples = step * job.spec.training.batch_size
            self.checkpoints.append(
                Checkpoint(step=step, examples=examples, seconds=round(clock.seconds, 3))
            )
            began = time.monotonic()
            model = arguments["model"]
            folder = checkpoint_folder(job.output, step)
            folder.parent.mkdir(exist_ok=True)
            write_model(model, model.state_dict(), job.policy, folder)
            clock.exclude(time.monotonic() - began)

    return CheckpointRecorder()


if __name__ == "__main__":
    sys.exit(run_worker(train))
