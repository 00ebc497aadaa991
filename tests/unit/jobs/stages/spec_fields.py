"""Every leaf field of the spec: its path, and another valid value of it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any, get_args

from pydantic import ValidationError

from selfemo_api.api_model import ApiModel
from selfemo_api.spec import EvolutionSpec

#: Values to try for a field; the first that is valid and differs is used.
CANDIDATES: tuple[Any, ...] = (
    *(True, False, 1, 2, 64, 0.5, 0.25),
    *(
        "other",
        "other-v9",
        "file:///other",
        "amd.com/gpu",
        "https://other",
        "WhenRequired",
        "Always",
        "joy",
    ),
    *(
        {"joy": 0.5, "fear": 0.5},
        {"text": "utterance"},
        {"key": "value"},
        ["joy", "fear"],
        ["Recognizer"],
        ["Score"],
        ["MLflow"],
        [{"name": "other"}],
        [{"template": {"image": "other"}}],
    ),
)


#: The uses of a stage's sources, by their path.
USES = {
    "dataset.sources.labeled": {"Labeled"},
    "dataset.sources.evaluation": {"Evaluation"},
}


def leaf_fields(model: type[ApiModel] = EvolutionSpec, parent: str = "") -> Iterator[str]:
    """Yield the dotted path of each leaf field; a list's items have the path of the list."""
    for name, field in model.model_fields.items():
        path = f"{parent}{field.alias or name}"
        inner = _models_in(field.annotation)
        if inner:
            yield from leaf_fields(inner[0], f"{path}.")
        else:
            yield path


def all_covering(path: str, paths: Sequence[str]) -> list[str]:
    """Return those of some paths that are a field, or a part of the spec that the field is in.

    A stage's sources are those with some uses: ``dataset.sources.selfPlay`` covers the fields of
    ``dataset.sources``. A stage may read several kinds of sources.
    """
    covering_paths = []
    for own in paths:
        whole = "dataset.sources" if own.startswith("dataset.sources.") else own
        if path == whole or path.startswith(f"{whole}."):
            covering_paths.append(own)
    return covering_paths


def covering(path: str, paths: Sequence[str]) -> str | None:
    """Return the first path of :func:`all_covering`, or None."""
    return next(iter(all_covering(path, paths)), None)


def with_another_value(
    spec: EvolutionSpec, path: str, covered_by: str | None = None
) -> EvolutionSpec:
    """Return the spec with another value of one field. CEL rules are not looked at.

    Parameters
    ----------
    spec
        The spec.
    path
        The dotted path of the field. In a list, the field of the first item is changed; of the
        sources, the first one that the stage reads.
    covered_by
        The path that covers the field for a stage, see :func:`covering`.
    """
    uses = USES.get(covered_by or "", {"SelfPlay", "Labeled"})
    *parents, name = path.split(".")
    for value in (*_members(path), *CANDIDATES):
        document = copy.deepcopy(spec.to_json())
        place: Any = document
        for parent in parents:
            place = place[parent]
            if parent == "sources":
                place = next(source for source in place if source["use"] in uses)
            place = place[0] if isinstance(place, list) else place
        place[name] = value
        try:
            changed = EvolutionSpec.model_validate(document)
        except ValidationError:
            continue
        if changed != spec:
            return changed
    raise AssertionError(f"no other value of {path} is among the candidates")


def _models_in(annotation: Any) -> list[type[ApiModel]]:
    if isinstance(annotation, type) and issubclass(annotation, ApiModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _members(path: str) -> list[Any]:
    """Return the values of an enumeration."""
    model: type[ApiModel] = EvolutionSpec
    for name in path.split("."):
        field = next(f for n, f in model.model_fields.items() if (f.alias or n) == name)
        inner = _models_in(field.annotation)
        model = inner[0] if inner else model
    kinds = [field.annotation, *get_args(field.annotation)]
    return [m.value for k in kinds if isinstance(k, type) and issubclass(k, Enum) for m in k]
