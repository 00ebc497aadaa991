"""Candidates and the judge's readings in, scored candidates out: pure, no model needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from selfemo_api.spec import GroupWeight, RewardSpec, Signal
from selfemo_jobs.errors import BadInput
from selfemo_jobs.rewards import (
    Faults,
    GroupRewards,
    RewardTerms,
    Verdict,
    consensus,
    decode_label_set,
    find_faults,
    group_advantages,
    recognizer_rewards,
    responder_rewards,
)
from selfemo_jobs.rewards.label_sets import Bools, Floats, Masks, count_votes, mask_dtype
from selfemo_jobs.runtime.schemas import SCORED
from selfemo_jobs.stages.score.candidates import Rows, groups_of, label_masks
from selfemo_jobs.stages.score.tally import RoleTally, Tally, reward_edges

FIGURES = (
    "alignment",
    "agreement",
    "format",
    "penalty",
    "reward",
    "confidence",
    "consistency",
    "advantage",
)


@dataclass(frozen=True)
class Readings:
    """What the frozen judge reads, as masks; groups in the order of :class:`Groups`."""

    targets: Masks | None
    """Shape (N, S): of each recognizer group's target. None: the judge has no vote."""
    responses: Masks
    """Shape (M, G, S): of each response."""


@dataclass(frozen=True)
class ScoredPart:
    """One part's result."""

    table: pa.Table
    """Candidates of the groups that are kept, in their order, with rewards
    (:data:`selfemo_jobs.runtime.schemas.SCORED`)."""
    tally: Tally


@dataclass(frozen=True)
class _Scored:
    """One role's groups after scoring; shape (N, G) or (N,)."""

    rows: Rows
    kept: Bools
    truth: Masks
    confidence: Floats
    format: Bools
    penalty: Floats
    rewards: GroupRewards


def score_candidates(
    table: pa.Table,
    readings: Readings,
    *,
    labels: Sequence[str],
    reward: RewardSpec,
    group_size: int,
    seed: int = 0,
    where: str = "candidates",
) -> ScoredPart:
    """Score one part.

    A recognizer's group without gold labels whose vote has no outcome (no emotion reaches the
    threshold, or the vote is tied) is left out, and counted.

    Parameters
    ----------
    table
        Candidates (:data:`selfemo_jobs.runtime.schemas.CANDIDATES`), whole groups.
    readings
        The judge's, for the groups of ``groups_of(table, …)``.
    labels
        The label set.
    reward
        ``spec.reward``.
    group_size
        G.
    seed
        Of the rewards, where ``reward.signal`` is ``Random``; not used else.
    where
        The part's URI, for messages.

    Raises
    ------
    BadInput
        If a group is not whole, a label is unknown, or a response has no intended emotion.
    """
    part = _Part(table, labels, reward, where)
    groups = groups_of(table, group_size, where)
    recognizer, votes = _recognizer(part, groups.recognizer, readings.targets)
    responder, faults = _responder(part, groups.responder, readings.responses)
    if reward.signal is Signal.RANDOM:
        draw = np.random.default_rng(seed)
        for role in (recognizer, responder):
            role.rewards.reward[:] = draw.random(role.rows.shape)
    advantage = [_advantages(role, reward.group_weight) for role in (recognizer, responder)]
    tally = Tally(
        recognizer=_role_tally(recognizer, advantage[0][1], reward),
        responder=_role_tally(responder, advantage[1][1], reward),
        **votes,
        **faults,
    )
    scored = [(recognizer, advantage[0][0]), (responder, advantage[1][0])]
    return ScoredPart(_scored_table(part, scored), tally)


def _recognizer(part: _Part, rows: Rows, targets: Masks | None) -> tuple[_Scored, dict[str, Any]]:
    """Return the recognizer's groups and the tally of their votes."""
    reward = part.reward
    members = part.masks("labels", rows)
    gold = part.masks("gold", rows[:, 0])
    vote = consensus(
        members,
        targets,
        num_labels=len(part.labels),
        threshold=reward.consensus,
        judge_weight=reward.judge.weight,
    )
    known = gold != 0
    agreed = vote.verdicts == Verdict.AGREED
    kept = agreed | known
    truth = np.where(known, gold, vote.masks)
    formats = part.formats(rows)
    rewards = recognizer_rewards(members, formats, truth, RewardTerms.from_spec(reward))
    votes = {
        "empty": _count(~kept & (vote.verdicts == Verdict.EMPTY)),
        "tied": _count(~kept & (vote.verdicts == Verdict.TIED)),
        "consensus": count_votes(truth[kept], len(part.labels)).tolist(),
        "gold": _count(known),
        "gold_voted": _count(known & agreed),
        "gold_right": _count(known & agreed & (vote.masks == gold)),
    }
    confidence = np.where(known, 1.0, vote.confidence)
    penalty = np.zeros(rows.shape)
    return _Scored(rows, kept, truth, confidence, formats, penalty, rewards), votes


def _responder(part: _Part, rows: Rows, readings: Masks) -> tuple[_Scored, dict[str, int]]:
    """Return the responder's groups and the tally of their faults."""
    reward = part.reward
    intended = part.masks("intended", rows[:, 0])
    if not intended.all():
        row = rows[np.flatnonzero(intended == 0)[0], 0]
        raise BadInput(
            f"{part.where}: row {row + 1}: `intended` is empty, which a responder's row may not be"
        )
    faults = [
        part.faults(group, decode_label_set(int(mask), part.labels))
        for group, mask in zip(rows, intended, strict=True)
    ]
    counts = [[fault.count for fault in group] for group in faults]
    penalty = reward.penalty * np.array(counts, np.float64).reshape(rows.shape)
    formats = part.formats(rows)
    rewards = responder_rewards(
        intended,
        readings,
        formats,
        penalty,
        RewardTerms.from_spec(reward),
        num_labels=len(part.labels),
    )
    kept = np.ones(len(rows), np.bool_)
    every = [fault for group in faults for fault in group]
    found = {
        "names_emotion": sum(f.names_emotion for f in every),
        "repeats_context": sum(f.repeats_context for f in every),
        "bad_length": sum(f.bad_length for f in every),
    }
    confidence = np.ones(len(rows))  # what it is to express is known
    return _Scored(rows, kept, intended, confidence, formats, penalty, rewards), found


@dataclass(frozen=True)
class _Part:
    """The table with what it takes to read it."""

    table: pa.Table
    labels: Sequence[str]
    reward: RewardSpec
    where: str

    def masks(self, column: str, rows: Rows) -> Masks:
        """Return the label sets at some rows."""
        return label_masks(self.table, column, rows, self.labels, self.where)

    def formats(self, rows: Rows) -> Bools:
        """Return whether completions are well formed, and whole: one cut off is not."""
        well_formed, finished = (
            np.array(self.table[name].to_pylist(), np.bool_) for name in ("well_formed", "finished")
        )
        both: Bools = (well_formed & finished)[rows]
        return both

    def faults(self, group: Rows, intended: Sequence[str]) -> list[Faults]:
        """Return the faults of a group's responses."""
        context = [turn["text"] for turn in self.table["context"][int(group[0])].as_py()]
        return [
            find_faults(
                self.table["completion"][int(row)].as_py(),
                context,
                intended,
                min_words=self.reward.min_words,
                max_words=self.reward.max_words,
            )
            for row in group
        ]


def _advantages(scored: _Scored, weight: GroupWeight) -> tuple[Floats, Bools]:
    consistency = scored.rewards.consistency
    weights = consistency if weight is GroupWeight.CONSISTENCY else np.ones_like(consistency)
    return group_advantages(scored.rewards.reward, weights)


def _role_tally(scored: _Scored, zero_variance: Bools, reward: RewardSpec) -> RoleTally:
    kept = scored.kept
    rewards = scored.rewards.reward[kept]
    edges = reward_edges(reward)
    histogram, _ = np.histogram(np.clip(rewards, edges[0], edges[-1]), edges)
    return RoleTally(
        candidates=scored.rows.size,
        well_formed=_count(scored.format),
        rows=rewards.size,
        groups=_count(kept),
        zero_variance=_count(zero_variance & kept),
        consistency=float(scored.rewards.consistency[kept].sum()),
        reward=float(rewards.sum()),
        reward_squared=float(np.square(rewards).sum()),
        alignment=float(scored.rewards.alignment[kept].sum()),
        penalty=float(scored.penalty[kept].sum()),
        histogram=histogram.tolist(),
    )


def _count(which: Bools) -> int:
    return int(np.count_nonzero(which))


def _scored_table(part: _Part, groups: Sequence[tuple[_Scored, Floats]]) -> pa.Table:
    size = part.table.num_rows
    figures = {name: np.zeros(size) for name in FIGURES}
    truth = np.zeros(size, mask_dtype(len(part.labels)))
    kept = np.zeros(size, np.bool_)
    for scored, advantage in groups:
        values = {
            "alignment": scored.rewards.alignment,
            "agreement": scored.rewards.agreement,
            "format": scored.format,
            "penalty": scored.penalty,
            "reward": scored.rewards.reward,
            "confidence": scored.confidence[:, np.newaxis],
            "consistency": scored.rewards.consistency[:, np.newaxis],
            "advantage": advantage,
        }
        for name, value in values.items():
            figures[name][scored.rows] = value
        truth[scored.rows] = scored.truth[:, np.newaxis]
        kept[scored.rows] = scored.kept[:, np.newaxis]
    names = [decode_label_set(int(mask), part.labels) for mask in truth[kept]]
    columns = [
        *part.table.filter(pa.array(kept)).columns,
        pa.array(names, SCORED.field("consensus").type),
        *(pa.array(figures[name][kept].astype(np.float32)) for name in FIGURES),
    ]
    return pa.Table.from_arrays(columns, schema=SCORED)
