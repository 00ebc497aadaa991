"""How many tokens a model can read, by its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfemo_jobs.acceleration.rotary_scaling import depends_on_length, rotary_scalings
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.model_folder import read_model_config

#: Names of the number of positions that a model has learned or was trained for.
_POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len")
_ORIGINAL = "original_max_position_embeddings"


def position_limit(config: Mapping[str, Any]) -> int | None:
    """Return the largest number of tokens that a model can read; None if it has no limit.

    A model whose positions depend on the longest text of a batch (`longrope`, `dynamic`) can read
    as many as at first: longer texts would change the results of the others.

    Parameters
    ----------
    config
        The configuration of the decoder, as in ``config.json``.

    Examples
    --------
    >>> scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    >>> position_limit({"max_position_embeddings": 32768, "rope_scaling": scaling})
    131072
    >>> longrope = {"rope_type": "longrope", "original_max_position_embeddings": 4096}
    >>> position_limit({"max_position_embeddings": 131072, "rope_scaling": longrope})
    4096
    """
    limits = [config[name] for name in _POSITIONS if isinstance(config.get(name), int)]
    if not limits:
        return None
    limit = int(limits[0])
    scalings = list(rotary_scalings(config))
    for scaling in filter(depends_on_length, scalings):
        original = scaling.get(_ORIGINAL) or config.get(_ORIGINAL)
        return min(limit, original) if isinstance(original, int) else limit
    scaling = scalings[0] if scalings else {}
    factor, original = scaling.get("factor"), scaling.get(_ORIGINAL)
    if isinstance(factor, int | float) and factor > 1 and original in (None, limit):
        return int(limit * factor)
    return limit


def folder_limit(folder: Path) -> int | None:
    """Return :func:`position_limit` of the model in a folder.

    Parameters
    ----------
    folder
        The model's folder.

    Raises
    ------
    BadInput
        If its ``config.json`` cannot be read.
    """
    config = read_model_config(folder)
    decoder = config.get("text_config")
    return position_limit(decoder if isinstance(decoder, dict) else config)


def check_prompt_tokens(folder: Path, max_prompt_tokens: int, completion: int) -> None:
    """Check that a model can read its prompts with their completions.

    Parameters
    ----------
    folder
        The model's folder.
    max_prompt_tokens
        The most tokens of a prompt, by the model's description.
    completion
        The most tokens of a completion.

    Raises
    ------
    BadInput
        If they are more than the model's positions.
    """
    limit = folder_limit(folder)
    if limit is not None and max_prompt_tokens + completion > limit:
        raise BadInput(
            f"{folder}: its description allows prompts of {max_prompt_tokens} tokens, and with "
            f"{completion} completion tokens the model needs a context of "
            f"{max_prompt_tokens + completion}, but it supports {limit}; set `maxPromptTokens` "
            f"in its selfemo.json to at most {limit - completion}. If the model is on S3 or the "
            "Hub, `selfemo export` writes a local copy to edit"
        )
