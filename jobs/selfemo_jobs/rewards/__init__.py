"""Rewards of the recognizer and the responder, for many groups at once.

Only the abstract of SELF-EMO (arXiv 2604.18003) is public. The equations are therefore ours; each
function states its formula. ``docs/guides/rewards.md`` explains why each term is there.
"""

from __future__ import annotations

from selfemo_jobs.rewards.consensus import Consensus, Verdict, consensus
from selfemo_jobs.rewards.group_rewards import (
    GroupRewards,
    RewardTerms,
    group_advantages,
    recognizer_rewards,
    responder_rewards,
)
from selfemo_jobs.rewards.label_sets import (
    decode_label_set,
    encode_label_sets,
    mean_agreement,
    smoothed_iou,
    soft_iou,
)
from selfemo_jobs.rewards.penalties import Faults, find_faults

__all__ = [
    "Consensus",
    "Faults",
    "GroupRewards",
    "RewardTerms",
    "Verdict",
    "consensus",
    "decode_label_set",
    "encode_label_sets",
    "find_faults",
    "group_advantages",
    "mean_agreement",
    "recognizer_rewards",
    "responder_rewards",
    "smoothed_iou",
    "soft_iou",
]
