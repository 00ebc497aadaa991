"""Rows of the Evolution dashboard: the running stage, and training."""

from __future__ import annotations

from tools.dashboards.board_types import ORANGE, Kind, Panel, Query, Row
from tools.dashboards.evolution_panels import TO_LOGS, live, one, panel, stat

_PODS = "The stage's pods provide this metric (`metrics.podMonitor.enabled`)."
_FALLS = "It falls when a pod ends, because the pod's work no longer counts."
_DONE, _TOTAL = (f"sum by (stage) ({live(name)})" for name in ("done", "total"))
_SINCE = f"(time() - {live('progress_timestamp_seconds')})"

LIVE = Row(
    "Running stage",
    [
        panel(
            Kind.GAUGES,
            "Progress",
            "Fraction of the running stage's work that is done, over the pods that run now. "
            f"{_FALLS} {_PODS}",
            "percentunit",
            [Query(f"{_DONE} / {_TOTAL}", "{{stage}}", instant=True)],
            width=6,
            height=7,
            bounds=(0.0, 1.0),
            link=TO_LOGS,
        ),
        stat(
            "Time left",
            "Estimated time until the running stage's work is done, at its mean rate so far. The "
            f"slowest pod counts. {_PODS}",
            "s",
            f"max(clamp_min({live('remaining_seconds')} - {_SINCE}, 0))",
            width=3,
            height=7,
            link=TO_LOGS,
        ),
        stat(
            "Last progress",
            f"Time since the pods of the running stage last made progress. {_PODS}",
            "s",
            f"min({_SINCE})",
            width=3,
            height=7,
            link=TO_LOGS,
            thresholds=[(3600.0, ORANGE)],
        ),
        panel(
            Kind.LINES,
            "Progress over time",
            "Fraction of each stage's work that was done, over the pods that ran at that time. "
            f"{_FALLS} {_PODS}",
            "percentunit",
            [Query(f"{_DONE} / {_TOTAL}", "{{stage}}")],
            width=6,
            height=7,
            bounds=(0.0, 1.0),
            link=TO_LOGS,
        ),
        panel(
            Kind.LINES,
            "Tokens per second",
            f"Tokens per second that self-play generates, summed over its pods. {_PODS}",
            "short",
            [Query(f"sum({live('tokens_per_second')})", "self-play")],
            width=6,
            height=7,
            bounds=(0.0, None),
            link=TO_LOGS,
        ),
    ],
)


def _training(title: str, text: str, unit: str, queries: list[Query], **more: object) -> Panel:
    options = {"width": 6, "height": 8, "decimals": 4} | more
    return panel(Kind.LINES, title, text, unit, queries, **options)


def _steps_and_mean(step: str, mean: str, legend: str = "") -> list[Query]:
    """Return the queries of a metric at the last step of a training, and of its mean."""
    return [
        Query(f"max by (stage) ({live(step)})", f"{legend} {{{{stage}}}}, last step".strip()),
        Query(one(mean), f"{legend} mean of the last training".strip()),
    ]


TRAINING = Row(
    "Training",
    [
        _training(
            "Loss",
            "The loss at the last step of a running training or warm start, and its mean over the "
            "last training.",
            "none",
            _steps_and_mean("loss", "train_loss_mean"),
        ),
        _training(
            "KL divergence",
            "The KL divergence of the policy from the reference, in nats. If it rises steeply, the "
            "policy drifts from the reference: raise `overrides.training.klBeta` or lower the "
            "learning rate.",
            "none",
            _steps_and_mean("kl", "train_kl"),
            bounds=(0.0, None),
        ),
        _training(
            "Clipped tokens",
            "Fraction of tokens whose probability ratio was clipped. A large fraction means that "
            "steps are too large, or that rollouts are reused too often.",
            "percentunit",
            [
                *_steps_and_mean("clip_low", "train_clip_low_ratio", "low,"),
                *_steps_and_mean("clip_high", "train_clip_high_ratio", "high,"),
            ],
            decimals=2,
            bounds=(0.0, None),
        ),
        _training(
            "Gradient norm",
            "The norm of the gradient before it is clipped to "
            "`overrides.training.optimizer.maxGradNorm`.",
            "none",
            _steps_and_mean("grad_norm", "train_grad_norm"),
            bounds=(0.0, None),
        ),
        _training(
            "Entropy",
            "The mean entropy of the policy's next token, in nats. If it approaches 0, the policy "
            "no longer explores.",
            "none",
            _steps_and_mean("entropy", "train_entropy"),
            bounds=(0.0, None),
        ),
        _training(
            "Importance weights",
            "Mean weight that corrects for the difference between the self-play engine and "
            "training. It is near 1 if both assign the same probabilities to the tokens.",
            "none",
            [Query(one("train_importance_mean"), "mean of the last training")],
        ),
        _training(
            "Completion length",
            "Mean number of tokens per completion in the last self-play.",
            "none",
            [Query(one("completion_tokens_mean"), "tokens")],
            decimals=1,
            bounds=(0.0, None),
        ),
        _training(
            "Truncated completions",
            "Fraction of completions of the last self-play that reached the token limit "
            "`overrides.selfPlay.maxTokens` before their end.",
            "percentunit",
            [Query(f"1 - {one('finished_completions_ratio')}", "truncated")],
            decimals=2,
            bounds=(0.0, None),
        ),
        _training(
            "Imitation",
            "Mean cross-entropy of the imitated answers in the last training, in nats. Empty if "
            "`training.imitation` is 0.",
            "none",
            [Query(one("train_imitation"), "mean of the last training", optional=True)],
            width=12,
            bounds=(0.0, None),
        ),
        _training(
            "Learning rate",
            "The learning rate at the last step of a running training or warm start.",
            "sci",
            [Query(f"max by (stage) ({live('learning_rate')})", "{{stage}}")],
            width=12,
            bounds=(0.0, None),
        ),
    ],
)
