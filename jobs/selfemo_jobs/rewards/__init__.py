"""Rewards of SELF-EMO's two roles, vectorized over groups (equations: docs/guides/rewards.md)."""

from __future__ import annotations

from selfemo_jobs.rewards.consensus import Consensus, Verdict, consensus
from selfemo_jobs.rewards.groups import (
    GroupRewards,
    Terms,
    advantages,
    expression,
    understanding,
)
from selfemo_jobs.rewards.label_sets import decode, encode, mean_agreement, smoothed_iou, soft_iou
from selfemo_jobs.rewards.penalties import Faults, faults_of

__all__ = [
    "Consensus",
    "Faults",
    "GroupRewards",
    "Terms",
    "Verdict",
    "advantages",
    "consensus",
    "decode",
    "encode",
    "expression",
    "faults_of",
    "mean_agreement",
    "smoothed_iou",
    "soft_iou",
    "understanding",
]
