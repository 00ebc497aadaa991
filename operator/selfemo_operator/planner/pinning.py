"""Pins the spec of a generation: it is complete, and its rules hold. Pure."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from selfemo_api.comparison import comparison_error
from selfemo_api.recipes import changed_settings
from selfemo_api.schema.rules import check_resolved, check_resolved_edit
from selfemo_api.spec import EvolutionSpec, JudgeModel
from selfemo_api.status import Best, Current, EvolutionStatus, Reason
from selfemo_operator.planner.types import End

#: Bounds of ``status.current.changes``: its entries, and the characters of each.
_CHANGES_MAX, _CHANGE_LENGTH_MAX = 64, 256


def pinned(spec: EvolutionSpec, *, policy: str, judge: str, best: Best | None = None) -> Current:
    """Return the start of a generation: its spec, with the values of its recipe, and its models.

    Parameters
    ----------
    spec
        The spec as it is now, with its label prior.
    policy, judge
        The URIs of the generation's models.
    best
        The best generation so far. None: there is none yet.
    """
    settings = changed_settings(spec).items()
    changes = [f"{path}={json.dumps(value)}"[:_CHANGE_LENGTH_MAX] for path, value in settings]
    return Current(
        spec=pinned_json(spec),
        policy_uri=policy,
        judge_uri=judge,
        changes=changes[:_CHANGES_MAX],
        previous_best=best,
    )


def judge_of(
    spec: EvolutionSpec, status: EvolutionStatus, *, policy: str, best: Best | None
) -> str:
    """Return the URI of the judge of a generation after generation 0.

    Parameters
    ----------
    spec
        The spec of the generation.
    status
        The status, with the baseline.
    policy
        The URI of the generation's policy.
    best
        The best generation before this one. None: it is not known, and the baseline stands for it.
    """
    baseline = status.baseline_uri or spec.baseline_uri
    judges = {
        JudgeModel.BASELINE: baseline,
        JudgeModel.BEST: best.model_uri if best is not None else baseline,
        JudgeModel.POLICY: policy,
    }
    return judges[spec.reward.judge.model]


def pinned_json(spec: EvolutionSpec) -> dict[str, Any]:
    """Return the JSON of a spec that is pinned: without the fields that have their base value.

    So after a rollback, an older operator can read the specs that a newer one has pinned, unless
    they use what only the newer one has. The recipe is always there: its base value is the default
    recipe, which may change.

    Parameters
    ----------
    spec
        The spec, with the values of its recipe.
    """
    return {"recipe": spec.recipe, **spec.to_brief_json()}


def pinned_spec(status: EvolutionStatus) -> EvolutionSpec:
    """Return the spec that is pinned for the generation in progress.

    Raises
    ------
    ValueError
        If no generation is in progress.
    """
    if status.current is None:
        raise ValueError("no generation is in progress")
    return EvolutionSpec.model_validate(status.current.spec)


def refusal(spec: EvolutionSpec, status: EvolutionStatus) -> End | None:
    """Return the end that a spec brings which must not be pinned, or None.

    The API server checks the fields that a person wrote. With the values of the recipe, other
    rules may be broken, for example that a batch has whole groups. Once a model has been measured,
    the settings must not change with which generations are compared, and no label prior is counted.

    Parameters
    ----------
    spec
        The spec as it is now, with its label prior.
    status
        The status, with the spec that was pinned before, if there was one.
    """
    before = status.current.spec if status.current is not None else None
    content = pinned_json(spec)
    if content == before:
        return None  # it was checked when it was pinned
    problems = _problems(
        _text(content), _text(before) if before is not None else "", status.best is not None
    )
    return End(Reason.BAD_INPUT, problems) if problems else None


def _missing_label_prior(spec: EvolutionSpec) -> str:
    """Return why a spec has no label prior although it uses one, or an empty text."""
    if not spec.flywheel.use_label_prior or spec.dataset.label_prior is not None:
        return ""
    return (
        "`flywheel.useLabelPrior` requires `dataset.labelPrior` now: Check counted the labels of "
        "generation 0, and there were none. Set `dataset.labelPrior`, or "
        "`flywheel.useLabelPrior: false`"
    )


def _text(spec: dict[str, Any]) -> str:
    return json.dumps(spec, sort_keys=True)


@lru_cache(maxsize=64)
def _problems(spec_text: str, before_text: str, is_measured: bool) -> str:
    """Return the problems of a spec in one line. A pass that is repeated checks it only once."""
    spec = EvolutionSpec.model_validate_json(spec_text)
    problems = [str(problem) for problem in check_resolved(spec)]
    if before_text:
        before = EvolutionSpec.model_validate_json(before_text)
        problems += map(str, check_resolved_edit(before, spec))
        if is_measured and not problems:
            problems += [_missing_label_prior(spec), comparison_error(before, spec)]
    return "; ".join(filter(None, problems))
