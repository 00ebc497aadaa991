"""The date that chat templates print.

The templates of some models (Llama 3.2, SmolLM3, Granite) print the date of today. They call
``strftime_now``, which Transformers answers from the clock. A prompt would then change at midnight,
and with it all that follows from its tokens. So each template of a model gets a function with this
name that knows one date.
"""

from __future__ import annotations

import re
from datetime import date

#: The date of all prompts. The templates of Llama 3 print it where there is no clock, so its models
#: have often read it as the date of today.
PROMPT_DATE = date(2024, 7, 26)

#: The name of the function, as Transformers and vLLM have it.
STRFTIME_NOW = "strftime_now"
#: The directives of ``strftime`` that give a part of a date, a time or a zone.
_DIRECTIVE = re.compile("%-?[aAbBcdDeFgGhHIjmMpRSTuUVwWxXyYzZ]")


def strftime_now(format: str) -> str:
    """Return the date of all prompts as a text: the function that chat templates call.

    Parameters
    ----------
    format
        The form of the text, in the directives of ``strftime``.

    Examples
    --------
    >>> strftime_now("%d %b %Y")
    '26 Jul 2024'
    """
    return PROMPT_DATE.strftime(format)


def date_parts(template: str) -> dict[str, str]:
    """Return what the directives of ``strftime`` in a chat template stand for.

    Parameters
    ----------
    template
        The chat template of a model.

    Returns
    -------
    dict of str to str
        The text of each directive, in the order of the directives. Empty: the template does not ask
        for a date.

    Examples
    --------
    >>> date_parts("Today is {{ strftime_now('%-d %B') }}.")
    {'%-d': '26', '%B': 'July'}
    >>> date_parts("{% set x = '%d' %}")
    {}
    """
    if STRFTIME_NOW not in template:
        return {}
    return {name: strftime_now(name) for name in sorted(set(_DIRECTIVE.findall(template)))}
