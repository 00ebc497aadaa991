"""Figures of self-play: counted part by part, so that shards and resumed parts add up alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from selfemo_api.metrics import SelfPlayMetric
from selfemo_api.spec import Role
from selfemo_jobs.rewards.diversity import distinct_bigrams, label_entropy

Counts = dict[str, Any]

#: Digits kept of a figure: enough to compare, few enough to read.
_DIGITS = 6


def count_part(table: pa.Table) -> Counts:
    """Return the counts of one part (JSON)."""
    role = table["role"]
    recognizer = table.filter(pc.equal(role, Role.RECOGNIZER.value))
    responder = table.filter(pc.equal(role, Role.RESPONDER.value))
    logprobs = pc.list_flatten(table["logprobs"])
    named = Counter(pc.list_flatten(recognizer["labels"]).to_pylist())
    return {
        "rows": table.num_rows,
        "groups": pc.count_distinct(table["group_id"]).as_py(),
        "tokens": len(pc.list_flatten(table["completion_ids"])),
        "promptTokens": len(pc.list_flatten(table["prompt_ids"])),
        "logprob": float(pc.sum(logprobs.cast(pa.float64())).as_py() or 0.0),
        "finished": _true(table["finished"]),
        "recognizer": recognizer.num_rows,
        "recognizerWellFormed": _true(recognizer["well_formed"]),
        "responder": responder.num_rows,
        "responderWellFormed": _true(responder["well_formed"]),
        "distinct": distinct_bigrams(responder["completion"].to_pylist()),
        "labels": dict(sorted(named.items())),
    }


def figures_of(parts: Mapping[str, Counts], labels: Sequence[str]) -> dict[str, float]:
    """Return the stage's metrics from its parts' counts.

    ``diversity`` is the parts' distinct-2 averaged by their responses: over all responses at once
    it would fall with their number alone, and could not be compared between runs.
    """
    counts = [parts[path] for path in sorted(parts)]

    def total(name: str) -> float:
        return float(sum(count[name] for count in counts))

    rows, tokens, responses = total("rows"), total("tokens"), total("responder")
    named = [sum(count["labels"].get(label, 0) for count in counts) for label in labels]
    figures: dict[str, float] = {
        SelfPlayMetric.CANDIDATES: rows,
        SelfPlayMetric.GROUPS: total("groups"),
        SelfPlayMetric.TOKENS: tokens,
        SelfPlayMetric.PROMPT_TOKENS: total("promptTokens"),
        SelfPlayMetric.WELL_FORMED: _share(
            total("recognizerWellFormed") + total("responderWellFormed"), rows
        ),
        SelfPlayMetric.FINISHED: _share(total("finished"), rows),
        SelfPlayMetric.MEAN_LOGPROB: _share(total("logprob"), tokens),
    }
    if total("recognizer"):
        well_formed = _share(total("recognizerWellFormed"), total("recognizer"))
        figures[SelfPlayMetric.RECOGNIZER_WELL_FORMED] = well_formed
        figures[SelfPlayMetric.LABEL_ENTROPY] = round(label_entropy(named), _DIGITS)
    if responses:
        weighted = sum(count["distinct"] * count["responder"] for count in counts)
        figures[SelfPlayMetric.RESPONDER_WELL_FORMED] = _share(
            total("responderWellFormed"), responses
        )
        figures[SelfPlayMetric.DIVERSITY] = _share(weighted, responses)
    return figures


def label_counts(parts: Mapping[str, Counts], labels: Sequence[str]) -> dict[str, int]:
    """Return how often the recognizer named each label."""
    return {
        label: sum(count["labels"].get(label, 0) for count in parts.values()) for label in labels
    }


def _true(column: pa.ChunkedArray) -> int:
    return int(pc.sum(column).as_py() or 0)


def _share(part: float, whole: float) -> float:
    return round(part / whole, _DIGITS) if whole else 0.0
