"""Scoring: candidates and the judge's readings go in, candidates with rewards come out.

The functions are pure and need no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from selfemo_api.spec import GroupWeight, RewardSpec, Signal
from selfemo_jobs.errors import BadRows
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
from selfemo_jobs.rewards.aligned_vote import aligned_vote
from selfemo_jobs.rewards.label_sets import Bools, Floats, Masks, count_votes, mask_dtype
from selfemo_jobs.runtime.schemas import SCORED
from selfemo_jobs.stages.score.candidate_groups import Rows, find_groups, label_masks
from selfemo_jobs.stages.score.score_summary import RoleSummary, ScoreSummary, histogram_edges

#: The numeric columns that scoring adds, in the order of the schema.
SCORE_COLUMNS = (
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
class JudgePredictions:
    """The label sets that the frozen judge reads, as bit masks.

    The groups are in the order of :func:`selfemo_jobs.stages.score.candidate_groups.find_groups`.
    """

    targets: Masks | None
    """Shape (N, S): S readings of the target of each recognizer group. None if the judge has no
    vote."""
    responses: Masks
    """Shape (M, G, S): S readings of each response of each responder group."""


@dataclass(frozen=True)
class ScoredPart:
    """Result of scoring one part."""

    table: pa.Table
    """The candidates of the groups that are kept, in their order, with rewards
    (:data:`selfemo_jobs.runtime.schemas.SCORED`)."""
    summary: ScoreSummary
    """Counts and sums for the metrics."""


@dataclass(frozen=True)
class _CandidateTable:
    """The candidates of a part, and what is needed to read its columns."""

    table: pa.Table
    labels: Sequence[str]
    reward: RewardSpec
    uri: str

    def masks(self, column: str, rows: Rows) -> Masks:
        """Return the label sets of a column at some rows."""
        return label_masks(self.table, column, rows, self.labels, self.uri)

    def well_formed(self, rows: Rows) -> Bools:
        """Return whether completions are well formed. One that was cut off never is."""
        well_formed, finished = (
            np.array(self.table[name].to_pylist(), np.bool_) for name in ("well_formed", "finished")
        )
        both: Bools = (well_formed & finished)[rows]
        return both

    def faults(self, group: Rows, intended: Sequence[str]) -> list[Faults]:
        """Return the faults of each response of a group."""
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


@dataclass(frozen=True)
class _ScoredGroups:
    """Rewards of the N groups of one role."""

    rows: Rows
    """Shape (N, G): row numbers of the candidates."""
    kept: Bools
    """Shape (N,): whether the group is written."""
    truth: Masks
    """Shape (N,): the consensus, the gold labels or the intended emotions."""
    confidence: Floats
    """Shape (N,): the confidence of the vote; 1 where no vote was needed."""
    well_formed: Bools
    """Shape (N, G)."""
    penalty: Floats
    """Shape (N, G)."""
    rewards: GroupRewards


def score_candidates(
    table: pa.Table,
    readings: JudgePredictions,
    *,
    labels: Sequence[str],
    reward: RewardSpec,
    group_size: int,
    label_prior: Mapping[str, float] | None = None,
    seed: int = 0,
    uri: str = "candidates",
) -> ScoredPart:
    """Score one part.

    A recognizer group without gold labels is dropped and counted if its vote has no result: no
    emotion reaches the threshold, or the vote is tied.

    Parameters
    ----------
    table
        The candidates of the part (:data:`selfemo_jobs.runtime.schemas.CANDIDATES`), in complete
        groups.
    readings
        The judge's readings of these groups.
    labels
        The label set.
    reward
        The field ``spec.reward``.
    group_size
        Number of members of each group, G.
    label_prior
        The share of each emotion, which the aligned vote (``reward.consensus: 0``) refers to.
    seed
        The seed of the rewards if ``reward.signal`` is ``Random``; otherwise it is not used.
    uri
        URI of the part, for error messages.

    Returns
    -------
    ScoredPart
        The scored candidates, and their summary.

    Raises
    ------
    BadRows
        If a group is incomplete, a label is unknown, or a response has no intended emotion.
    """
    candidates = _CandidateTable(table, labels, reward, uri)
    groups = find_groups(table, group_size, uri)
    prior = np.array([label_prior.get(e, 0.0) for e in labels]) if label_prior else None
    recognizer, votes = _score_recognizer(candidates, groups.recognizer, readings.targets, prior)
    responder, faults = _score_responder(candidates, groups.responder, readings.responses)
    if reward.signal is Signal.RANDOM:
        generator = np.random.default_rng(seed)
        for role in (recognizer, responder):
            role.rewards.reward[:] = generator.random(role.rows.shape)
    recognizer_advantages, recognizer_zero = _advantages(recognizer, reward.group_weight)
    responder_advantages, responder_zero = _advantages(responder, reward.group_weight)
    summary = ScoreSummary(
        recognizer=_summarize_role(recognizer, recognizer_zero, reward),
        responder=_summarize_role(responder, responder_zero, reward),
        **votes,
        **faults,
    )
    scored = [(recognizer, recognizer_advantages), (responder, responder_advantages)]
    return ScoredPart(_scored_table(candidates, scored), summary)


def _score_recognizer(
    candidates: _CandidateTable, rows: Rows, targets: Masks | None, prior: Floats | None
) -> tuple[_ScoredGroups, dict[str, Any]]:
    """Return the scored recognizer groups, and the counts of their votes for the summary."""
    reward = candidates.reward
    members = candidates.masks("labels", rows)
    gold = candidates.masks("gold", rows[:, 0])
    size, weight = len(candidates.labels), reward.judge.weight
    if reward.consensus == 0.0:
        vote = aligned_vote(members, targets, num_labels=size, judge_weight=weight, prior=prior)
    else:
        vote = consensus(
            members,
            targets,
            num_labels=size,
            threshold=reward.consensus,
            judge_weight=weight,
        )
    has_gold = gold != 0
    agreed = vote.verdicts == Verdict.AGREED
    kept = agreed | has_gold
    truth = np.where(has_gold, gold, vote.masks)
    well_formed = candidates.well_formed(rows)
    rewards = recognizer_rewards(members, well_formed, truth, RewardTerms.from_spec(reward))
    counts = {
        "empty": _count(~kept & (vote.verdicts == Verdict.EMPTY)),
        "tied": _count(~kept & (vote.verdicts == Verdict.TIED)),
        "consensus": count_votes(truth[kept], len(candidates.labels)).tolist(),
        "gold": _count(has_gold),
        "gold_voted": _count(has_gold & agreed),
        "gold_right": _count(has_gold & agreed & (vote.masks == gold)),
    }
    confidence = np.where(has_gold, 1.0, vote.confidence)
    penalty = np.zeros(rows.shape)
    groups = _ScoredGroups(rows, kept, truth, confidence, well_formed, penalty, rewards)
    return groups, counts


def _score_responder(
    candidates: _CandidateTable, rows: Rows, readings: Masks
) -> tuple[_ScoredGroups, dict[str, int]]:
    """Return the scored responder groups, and the counts of their faults for the summary."""
    reward, labels = candidates.reward, candidates.labels
    intended = candidates.masks("intended", rows[:, 0])
    if not intended.all():
        row = rows[np.flatnonzero(intended == 0)[0], 0]
        raise BadRows(
            f"{candidates.uri}: row {row + 1}: `intended` is empty, but a responder row needs at "
            "least one emotion"
        )
    faults = [
        candidates.faults(group, decode_label_set(int(mask), labels))
        for group, mask in zip(rows, intended, strict=True)
    ]
    fault_counts = [[fault.count for fault in group] for group in faults]
    penalty = reward.penalty * np.array(fault_counts, np.float64).reshape(rows.shape)
    well_formed = candidates.well_formed(rows)
    rewards = responder_rewards(
        intended,
        readings,
        well_formed,
        penalty,
        RewardTerms.from_spec(reward),
        num_labels=len(labels),
    )
    kept = np.ones(len(rows), np.bool_)
    all_faults = [fault for group in faults for fault in group]
    counts = {
        "names_emotion": sum(f.names_emotion for f in all_faults),
        "repeats_context": sum(f.repeats_context for f in all_faults),
        "bad_length": sum(f.bad_length for f in all_faults),
    }
    confidence = np.ones(len(rows))  # the intended emotions are known
    groups = _ScoredGroups(rows, kept, intended, confidence, well_formed, penalty, rewards)
    return groups, counts


def _advantages(scored: _ScoredGroups, weight: GroupWeight) -> tuple[Floats, Bools]:
    """Return the advantages of one role, and which groups have equal rewards only."""
    rewards = scored.rewards
    weights = {
        GroupWeight.CONSISTENCY: rewards.consistency,
        GroupWeight.DEVIATION: rewards.reward.std(axis=1),
        GroupWeight.NONE: np.ones_like(rewards.consistency),
    }[weight]
    return group_advantages(rewards.reward, weights)


def _summarize_role(scored: _ScoredGroups, zero_variance: Bools, reward: RewardSpec) -> RoleSummary:
    kept = scored.kept
    rewards = scored.rewards.reward[kept]
    edges = histogram_edges(reward)
    histogram, _ = np.histogram(np.clip(rewards, edges[0], edges[-1]), edges)
    return RoleSummary(
        candidates=scored.rows.size,
        well_formed=_count(scored.well_formed),
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


def _count(flags: Bools) -> int:
    return int(np.count_nonzero(flags))


def _scored_table(
    candidates: _CandidateTable, groups: Sequence[tuple[_ScoredGroups, Floats]]
) -> pa.Table:
    """Return the candidates of the kept groups of both roles, in their order, with all scores."""
    size = candidates.table.num_rows
    scores = {name: np.zeros(size) for name in SCORE_COLUMNS}
    truth = np.zeros(size, mask_dtype(len(candidates.labels)))
    kept = np.zeros(size, np.bool_)
    for scored, advantages in groups:
        values = {
            "alignment": scored.rewards.alignment,
            "agreement": scored.rewards.agreement,
            "format": scored.well_formed,
            "penalty": scored.penalty,
            "reward": scored.rewards.reward,
            "confidence": scored.confidence[:, np.newaxis],
            "consistency": scored.rewards.consistency[:, np.newaxis],
            "advantage": advantages,
        }
        for name, value in values.items():
            scores[name][scored.rows] = value
        truth[scored.rows] = scored.truth[:, np.newaxis]
        kept[scored.rows] = scored.kept[:, np.newaxis]
    names = [decode_label_set(int(mask), candidates.labels) for mask in truth[kept]]
    columns = [
        *candidates.table.filter(pa.array(kept)).columns,
        pa.array(names, SCORED.field("consensus").type),
        *(pa.array(scores[name][kept].astype(np.float32)) for name in SCORE_COLUMNS),
    ]
    return pa.Table.from_arrays(columns, schema=SCORED)
