"""Metrics of self-play, computed from the counts of its parts.

Counts are kept for each part. Parts of other shards and of earlier attempts therefore add up to the
same metrics as parts that one process generated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from selfemo_api.metrics import SelfPlayMetric
from selfemo_api.seeds import derive_seed
from selfemo_api.spec import Role, SelfPlaySpec
from selfemo_jobs.rewards.diversity import BIGRAM_HASH, bigram_hashes, label_entropy

#: Counts of one part, in the form in which the report stores them.
Counts = dict[str, Any]

#: About the number of responses on which ``diversity`` is measured. Distinct-2 falls with the
#: number of texts, so it must not follow the size of a run. The same response 512 times has 0.002,
#: a tenth of the bound of a collapse. The hashes of 512 take some 40 KiB of the manifest.
SAMPLED_RESPONSES = 512

#: Decimal places of a metric: enough to compare, few enough to read.
_DIGITS = 6


def sampled_share(settings: SelfPlaySpec, episodes: int) -> float:
    """Return the share of the responses on which ``diversity`` is measured.

    Parameters
    ----------
    settings
        The field ``spec.selfPlay``.
    episodes
        The number of episodes of the generation, of all shards together.

    Examples
    --------
    >>> sampled_share(SelfPlaySpec(), episodes=640)
    0.1
    """
    turns = episodes * settings.turns * settings.responder_share
    return min(1.0, SAMPLED_RESPONSES / max(1.0, turns * settings.group_size))


def count_part(table: pa.Table, sampled: float = 1.0) -> Counts:
    """Return the counts of one part.

    Parameters
    ----------
    table
        The candidates of the part (:data:`selfemo_jobs.runtime.schemas.CANDIDATES`).
    sampled
        The share of the responses whose bigrams are counted (:func:`sampled_share`).

    Returns
    -------
    dict
        Numbers of rows, groups and tokens, sums of log-probabilities, the bigrams of some responses
        and the recognizer's labels. The values can be written as JSON.
    """
    role = table["role"]
    recognizer = table.filter(pc.equal(role, Role.RECOGNIZER.value))
    responder = table.filter(pc.equal(role, Role.RESPONDER.value))
    logprobs = pc.list_flatten(table["logprobs"])
    bigrams = bigram_hashes(_sampled_responses(responder, sampled))
    named_labels = Counter(pc.list_flatten(recognizer["labels"]).to_pylist())
    return {
        "rows": table.num_rows,
        "groups": pc.count_distinct(table["group_id"]).as_py(),
        "tokens": len(pc.list_flatten(table["completion_ids"])),
        "promptTokens": len(pc.list_flatten(table["prompt_ids"])),
        "logprob": float(pc.sum(logprobs.cast(pa.float64())).as_py() or 0.0),
        "finished": _count_true(table["finished"]),
        "recognizer": recognizer.num_rows,
        "recognizerWellFormed": _count_true(recognizer["well_formed"]),
        "responder": responder.num_rows,
        "responderWellFormed": _count_true(responder["well_formed"]),
        "bigrams": len(bigrams),
        "bigramHashes": "".join(sorted(set(bigrams))),
        "labels": dict(sorted(named_labels.items())),
    }


def self_play_metrics(parts: Mapping[str, Counts], labels: Sequence[str]) -> dict[str, float]:
    """Return the metrics of the stage.

    ``diversity`` is the distinct-2 of about :data:`SAMPLED_RESPONSES` responses. That of all
    responses would fall with their number, so that runs of different sizes could not be compared.
    Which responses they are does not depend on the parts.

    Parameters
    ----------
    parts
        The counts of each part by its path.
    labels
        The label set.

    Returns
    -------
    dict of str to float
        The metrics by name (:class:`selfemo_api.metrics.SelfPlayMetric`).
    """
    counts = [parts[path] for path in sorted(parts)]

    def total(name: str) -> float:
        return float(sum(count[name] for count in counts))

    rows, tokens, responses = total("rows"), total("tokens"), total("responder")
    by_label = [sum(count["labels"].get(label, 0) for count in counts) for label in labels]
    metrics: dict[str, float] = {
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
        metrics[SelfPlayMetric.RECOGNIZER_WELL_FORMED] = well_formed
        metrics[SelfPlayMetric.LABEL_ENTROPY] = round(label_entropy(by_label), _DIGITS)
    if responses:
        metrics[SelfPlayMetric.RESPONDER_WELL_FORMED] = _share(
            total("responderWellFormed"), responses
        )
        metrics |= _diversity(counts)
    return metrics


def label_counts(parts: Mapping[str, Counts], labels: Sequence[str]) -> dict[str, int]:
    """Return how often the recognizer named each label.

    Parameters
    ----------
    parts
        The counts of each part by its path.
    labels
        The label set.

    Returns
    -------
    dict of str to int
        The count of each label, in the order of ``labels``.
    """
    return {
        label: sum(count["labels"].get(label, 0) for count in parts.values()) for label in labels
    }


def _diversity(counts: Sequence[Counts]) -> dict[str, float]:
    """Return the metric ``diversity``; nothing if an earlier version counted all parts."""
    sampled = [count for count in counts if "bigrams" in count]
    if not sampled:
        return {}
    texts = (count["bigramHashes"] for count in sampled)
    distinct = {t[i : i + BIGRAM_HASH] for t in texts for i in range(0, len(t), BIGRAM_HASH)}
    return {
        SelfPlayMetric.DIVERSITY: _share(len(distinct), sum(count["bigrams"] for count in sampled))
    }


def _sampled_responses(responder: pa.Table, share: float) -> list[str]:
    """Return the texts of the share of responses whose group and member have the least hashes."""
    columns = (responder[name].to_pylist() for name in ("group_id", "member", "completion"))
    bits = 53  # each such number is a float
    return [
        text
        for group, member, text in zip(*columns, strict=True)
        if share >= 1.0 or derive_seed(0, group, member, bits=bits) < share * 2**bits
    ]


def _count_true(column: pa.ChunkedArray) -> int:
    return int(pc.sum(column).as_py() or 0)


def _share(part: float, whole: float) -> float:
    return round(part / whole, _DIGITS) if whole else 0.0
