"""``selfemo validate --resolve``: the spec with its recipe, and what differs from the recipe."""

from __future__ import annotations

import sys

from selfemo_api.recipes import changed_settings, written_path
from selfemo_api.spec import EvolutionSpec
from selfemo_api.text.control_characters import json_text, printable
from selfemo_operator.cli.yaml_output import yaml_text


def print_resolved(spec: EvolutionSpec, *, as_json: bool) -> None:
    """Print a resolved spec to standard output.

    Parameters
    ----------
    spec
        The resolved spec.
    as_json
        Print a JSON object with ``spec`` and ``changes``. Otherwise the spec is YAML, and the
        changes are comments at its end.
    """
    changes = {written_path(path): value for path, value in changed_settings(spec).items()}
    if as_json:
        sys.stdout.write(json_text({"spec": spec.to_json(), "changes": changes}) + "\n")
    else:
        sys.stdout.write(resolved_yaml(spec, changes))


def resolved_yaml(spec: EvolutionSpec, changes: dict[str, object]) -> str:
    """Return a resolved spec as YAML that ends with comments about its changes.

    Parameters
    ----------
    spec
        The resolved spec.
    changes
        What differs from the recipe, by the path at which a person writes it.
    """
    text = yaml_text([{"spec": spec.to_json()}], default_flow_style=None)
    if not changes:
        return f"{text}# As in {spec.recipe}.\n"
    lines = (f"#   {printable(path)}: {json_text(value)}" for path, value in changes.items())
    return f"{text}# Different from {spec.recipe}:\n" + "\n".join(lines) + "\n"
