"""Times the recognizer's rewards and advantages against the plain-Python reference.

There are a million groups of eight over seven labels. The reference runs on the first 20,000
groups. Its time is scaled up linearly, since each group is computed by itself. On these groups the
results of both must agree.
"""

from __future__ import annotations

import gc
import json
import resource
import time

import numpy as np

from selfemo_api.dataset_labels import MELD
from selfemo_api.spec import RewardSpec
from selfemo_jobs.rewards import (
    RewardTerms,
    Verdict,
    consensus,
    decode_label_set,
    group_advantages,
    plain_implementation,
    recognizer_rewards,
)
from selfemo_jobs.rewards.label_sets import Bools, Floats, Masks

GROUPS, MEMBERS, SUBSET = 1_000_000, 8, 20_000
REPEATS = 7  # of both; the best counts, since other work on the machine only adds time
BLOCK = 20_000  # groups that are computed at once
GOAL = 50.0
SPEC = RewardSpec()


def sample() -> tuple[Masks, Bools]:
    """Return groups like those of a recognizer: mostly one emotion, sometimes two or none."""
    rng = np.random.default_rng(0)
    shape = (GROUPS, MEMBERS)
    favorite = rng.integers(0, len(MELD), (GROUPS, 1), dtype=np.uint8)
    other = rng.integers(0, len(MELD), shape, dtype=np.uint8)
    one = np.uint8(1)
    masks = one << np.where(rng.random(shape, np.float32) < 0.6, favorite, other)
    more = rng.integers(0, len(MELD), shape, dtype=np.uint8)
    masks |= np.where(rng.random(shape, np.float32) < 0.1, one << more, np.uint8(0))
    well_formed = rng.random(shape, np.float32) < 0.97
    return masks * well_formed, well_formed


def vectorized(masks: Masks, well_formed: Bools) -> tuple[Floats, Floats]:
    """Return rewards and advantages, one block of groups at a time, as a stage computes its parts.

    Both are NaN where a group has no consensus.
    """
    rewards, advantages = np.empty(masks.shape), np.empty(masks.shape)
    for start in range(0, len(masks), BLOCK):
        block = slice(start, start + BLOCK)
        members = masks[block]
        vote = consensus(
            members, None, num_labels=len(MELD), threshold=SPEC.consensus, judge_weight=0.0
        )
        scored = recognizer_rewards(
            members, well_formed[block], vote.masks, RewardTerms.from_spec(SPEC)
        )
        advantage, _ = group_advantages(scored.reward, scored.consistency)
        agreed = (vote.verdicts == Verdict.AGREED)[:, np.newaxis]
        rewards[block] = np.where(agreed, scored.reward, np.nan)
        advantages[block] = np.where(agreed, advantage, np.nan)
    return rewards, advantages


def plain(
    groups: list[list[frozenset[str]]], well_formed: list[list[bool]]
) -> tuple[list[list[float]], list[list[float]]]:
    """Return the same, computed by the reference."""
    terms, missing = RewardTerms.from_spec(SPEC), [float("nan")] * MEMBERS
    rewards, advantages = [], []
    for members, formed in zip(groups, well_formed, strict=True):
        truth = plain_implementation.consensus(members, (), MELD, SPEC.consensus, 0.0)
        if truth is None:
            rewards.append(missing)
            advantages.append(missing)
            continue
        r, c = plain_implementation.recognizer_rewards(members, formed, truth, terms)
        rewards.append(r)
        advantages.append(plain_implementation.group_advantages(r, c))
    return rewards, advantages


def main() -> None:
    masks, well_formed = sample()
    names = [frozenset(decode_label_set(mask, MELD)) for mask in range(1 << len(MELD))]
    groups = [[names[m] for m in row] for row in masks[:SUBSET].tolist()]
    formed = well_formed[:SUBSET].tolist()
    fast, slow = [], []
    for _ in range(REPEATS):
        gc.collect()
        start = time.perf_counter()
        rewards, advantages = vectorized(masks, well_formed)
        fast.append(time.perf_counter() - start)
        start = time.perf_counter()
        expected = plain(groups, formed)
        slow.append((time.perf_counter() - start) * GROUPS / SUBSET)
    np.testing.assert_allclose(rewards[:SUBSET], expected[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(advantages[:SUBSET], expected[1], rtol=0, atol=1e-9)
    value = min(slow) / min(fast)
    line = {
        "name": "rewards: 1 M groups of 8 over plain Python (20,000 groups, scaled)",
        "value": round(value, 1),
        "unit": "x",
        "goal": GOAL,
        "holds": value >= GOAL,
        "seconds": round(min(fast), 3),
        "referenceSeconds": round(min(slow), 1),
        "peakMiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
