"""The tokens of each stage of a run. Pure.

They are upper bounds: no group lacks a consensus, and the warm start takes all of its steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from selfemo_api.spec import EvolutionSpec, Role
from selfemo_api.stages import Stage
from selfemo_jobs.stages.check.workload import Workload

#: The responses of the measure of expression, as
#: :mod:`selfemo_jobs.stages.evaluate.expression_sample` has them: the most, and for each utterance.
MOST_RESPONSES, RESPONSES_PER_UTTERANCE = 512, 0.125


@dataclass(frozen=True)
class StageTokens:
    """The numbers of tokens of a stage."""

    read: float = 0.0
    """Of prompts, each read once however many completions it has; and of passes without a backward
    pass."""
    generated: float = 0.0
    """Of completions."""
    trained: float = 0.0
    """Of rows that are read forwards and backwards, in all epochs."""
    completions: float = 0.0
    """The number of completions, each of which has a product with the vocabulary at each token."""
    context: float = 0.0
    """The mean number of tokens of a prompt."""

    def times(self, number: float) -> StageTokens:
        """Return the tokens of so many runs of the stage."""
        counts = {name: getattr(self, name) * number for name in ("read", "generated", "trained")}
        return StageTokens(**counts, completions=self.completions * number, context=self.context)


def generation_tokens(spec: EvolutionSpec, work: Workload) -> dict[Stage, StageTokens]:
    """Return the tokens of each stage in one generation; those of the warm start are of the run.

    Parameters
    ----------
    spec
        The resolved spec.
    work
        What the run has to read.
    """
    tokens = {
        Stage.SELF_PLAY: self_play_tokens(spec, work),
        Stage.SCORE: score_tokens(spec, work),
        Stage.TRAIN: train_tokens(spec, work),
        Stage.EVALUATE: evaluate_tokens(spec, work),
    }
    if spec.has_warm_start:
        tokens = {Stage.WARM_START: warm_start_tokens(spec, work), **tokens}
    return tokens


def evaluate_tokens(spec: EvolutionSpec, work: Workload) -> StageTokens:
    """Return the tokens of one evaluation: of all answers, and of the measure of expression.

    Parameters
    ----------
    spec
        The resolved spec.
    work
        What the run has to read.
    """
    responses = expression_responses(spec, work)
    # the judge reads each response, and about as many human turns
    read = work.responder_prompt + work.response_prompt + work.recognizer_prompt
    completions = work.evaluated + 3 * responses
    total = work.evaluated * work.recognizer_prompt + responses * read
    return StageTokens(
        read=total,
        generated=work.evaluated * work.answer + responses * (work.response + 2 * work.answer),
        completions=completions,
        context=total / max(completions, 1),
    )


def expression_responses(spec: EvolutionSpec, work: Workload) -> float:
    """Return the number of responses on which expression is measured; 0 without the responder.

    Parameters
    ----------
    spec
        The resolved spec.
    work
        What the run has to read.
    """
    if Role.RESPONDER not in spec.self_play.roles:
        return 0.0
    return min(MOST_RESPONSES, RESPONSES_PER_UTTERANCE * work.selection)


def groups_of(spec: EvolutionSpec, work: Workload) -> dict[Role, int]:
    """Return the number of groups of each role in a generation.

    Parameters
    ----------
    spec
        The resolved spec.
    work
        What the run has to read.
    """
    settings = spec.self_play
    groups: dict[Role, int] = dict.fromkeys(settings.roles, work.episodes)
    if len(groups) == 2:  # an episode whose target is not answered has one turn
        answered = round(settings.responder_share * work.episodes)
        groups[Role.RESPONDER] = answered * settings.turns
        groups[Role.RECOGNIZER] = work.episodes + answered * (settings.turns - 1)
    elif Role.RESPONDER in groups:
        groups[Role.RESPONDER] = round(settings.responder_share * work.episodes) * settings.turns
    return groups


def self_play_tokens(spec: EvolutionSpec, work: Workload) -> StageTokens:
    """Return the tokens of self-play in a generation.

    Parameters
    ----------
    spec
        The resolved spec.
    work
        What the run has to read.
    """
    groups, size = groups_of(spec, work), spec.self_play.group_size
    limits = spec.self_play.max_tokens
    lengths = {
        Role.RECOGNIZER: (work.recognizer_prompt, min(work.answer, limits.recognizer)),
        Role.RESPONDER: (work.responder_prompt, min(work.response, limits.responder)),
    }
    read = sum(count * lengths[role][0] for role, count in groups.items())
    generated = sum(count * size * lengths[role][1] for role, count in groups.items())
    total = sum(groups.values())
    return StageTokens(read, generated, completions=total * size, context=read / max(total, 1))


def score_tokens(spec: EvolutionSpec, work: Workload) -> StageTokens:
    """Return the tokens that the judge reads and generates in a generation.

    Parameters
    ----------
    spec
        The resolved spec.
    work
        What the run has to read.
    """
    groups, judge = groups_of(spec, work), spec.reward.judge
    views = work.views or [work.recognizer_prompt]
    limit = spec.reading_tokens if judge.max_tokens != 0 else work.label
    reading = min(work.answer, limit)
    targets = groups.get(Role.RECOGNIZER, 0) if judge.weight > 0 else 0
    responses = groups.get(Role.RESPONDER, 0) * spec.self_play.group_size
    read = targets * sum(views) + responses * work.response_prompt
    prompts = targets * len(views) + responses
    readings = prompts * judge.samples
    return StageTokens(
        read, readings * reading, completions=readings, context=read / max(prompts, 1)
    )


def kept_groups(spec: EvolutionSpec, work: Workload) -> dict[Role, float]:
    """Return the number of groups of each role that training learns from in a generation.

    Parameters
    ----------
    spec
        The resolved spec.
    work
        What the run has to read.
    """
    keep, kept = spec.flywheel.keep, {}
    for role, count in groups_of(spec, work).items():
        # groups with labels all stay
        labeled = min(work.labeled, count) if role is Role.RECOGNIZER else 0
        kept[role] = (labeled + keep * (count - labeled)) * (1 + spec.flywheel.replay)
    return kept


def train_tokens(spec: EvolutionSpec, work: Workload) -> StageTokens:
    """Return the tokens of training in a generation. A group's prompt is read once in an epoch.

    Parameters
    ----------
    spec
        The resolved spec.
    work
        What the run has to read.
    """
    training, size = spec.training, spec.self_play.group_size
    kept = kept_groups(spec, work)
    imitated = 1 if training.imitation > 0 else 0
    rows = {Role.RECOGNIZER: size + imitated, Role.RESPONDER: size}
    texts = {
        Role.RECOGNIZER: (work.recognizer_prompt, work.answer),
        Role.RESPONDER: (work.responder_prompt, work.response),
    }
    # imitated responses and turns, each with a prompt of its own
    responses = kept.get(Role.RESPONDER, 0) if spec.imitates_responses else 0
    responses += kept.get(Role.RECOGNIZER, 0) if spec.roles_teach_each_other else 0
    epoch = sum(n * (texts[r][0] + rows[r] * texts[r][1]) for r, n in kept.items())
    epoch += responses * (work.responder_prompt + work.response)
    completions = sum(count * rows[role] for role, count in kept.items()) + responses
    steps = training.epochs * math.ceil(completions / training.batch_size)
    done = min(steps, training.max_steps or steps) * training.batch_size
    share = min(training.epochs, done / completions) if completions else 0.0
    return StageTokens(
        # the log-probabilities before the first step, and those of the reference
        read=epoch * min(1.0, share) * (2 if training.kl_beta > 0 else 1),
        trained=epoch * share,
        completions=completions * share,
        context=epoch / max(sum(kept.values()), 1),
    )


def warm_start_tokens(spec: EvolutionSpec, work: Workload) -> StageTokens:
    """Return the tokens of all steps of the warm start, and of its evaluations.

    Parameters
    ----------
    spec
        The resolved spec.
    work
        What the run has to read.
    """
    settings = spec.warm_start
    views = [work.recognizer_prompt, *work.views]
    recognizer = sum(views) / len(views) + work.answer
    responder = (work.responder_prompt or work.recognizer_prompt) + (work.response or work.answer)
    share = settings.responder_share
    example = (1 - share) * recognizer + share * responder
    evaluations = settings.steps // settings.evaluation_steps + 1
    examples = settings.steps * settings.batch_size
    return StageTokens(
        read=evaluations * work.selection * work.recognizer_prompt,
        generated=evaluations * work.selection * work.answer,
        trained=examples * example,
        completions=examples,
        context=example,
    )
