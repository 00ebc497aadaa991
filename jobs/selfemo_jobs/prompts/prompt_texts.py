"""The texts of a prompt set as a document: those of a built-in set, of a file, or of the spec.

A document of any origin has the same names (:data:`TEXT_NAMES`). Texts of the spec
(``model.promptTemplates``) replace those of the set that ``model.prompts`` names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from selfemo_api.schema.strict_yaml import PARSE_ERRORS, parse_yaml
from selfemo_api.spec import Role
from selfemo_jobs.errors import BadInput, error_line

#: The templates of the two roles: those of the prompts.
TEMPLATE_NAMES = ("recognize", "respond")
#: The texts around the content of a completion, and those at which it ends.
COMPLETION_NAMES = ("before", "between", "after", "stopRecognizer", "stopResponder")
#: All texts of a prompt set, by their names in a document.
TEXT_NAMES = (*TEMPLATE_NAMES, *COMPLETION_NAMES)
#: The texts that a file may leave out, by whether the set is for chats.
_DEFAULTS = {
    True: {"before": "", "between": ", ", "after": "", "stopRecognizer": "", "stopResponder": "\n"},
    False: {
        "before": " ",
        "between": ", ",
        "after": "\n",
        "stopRecognizer": "\n",
        "stopResponder": "\n",
    },
}
#: The largest size of a text, in characters. The API has the same limit.
MAX_TEXT = 8192
#: The largest size of a file, in bytes. It holds every text in UTF-8, with comments.
MAX_FILE = 256 * 1024


@dataclass(frozen=True)
class PromptTexts:
    """The texts of a prompt set, not yet compiled."""

    place: str
    """Where the texts come from, for messages: ``compact-v1`` or a URI."""
    chat: bool
    """Whether prompts are chat messages."""
    texts: Mapping[str, str]
    """Every text of :data:`TEXT_NAMES`."""
    replaced: frozenset[str] = frozenset()
    """The names of the texts that are from ``model.promptTemplates``."""

    def where(self, *names: str) -> str:
        """Return where some texts come from, for a message.

        Parameters
        ----------
        names
            Names of texts.
        """
        if self.replaced & {*names}:
            return "`model.promptTemplates`"
        return f"`model.prompts` is {self.place}"

    def with_texts(self, texts: Mapping[str, str]) -> PromptTexts:
        """Return the same set with some texts replaced.

        Parameters
        ----------
        texts
            The replacing texts by name, as in ``model.promptTemplates``.

        Raises
        ------
        BadInput
            If a name is unknown.
        """
        for name in texts:
            if name not in TEXT_NAMES:
                raise BadInput(
                    f"`model.promptTemplates` has `{name}`: the names are {', '.join(TEXT_NAMES)}"
                )
        replaced = self.replaced | {*texts}
        return PromptTexts(self.place, self.chat, {**self.texts, **texts}, replaced)


def stop_name(role: Role) -> str:
    """Return the name of the text at which a completion of a role ends.

    Examples
    --------
    >>> stop_name(Role.RECOGNIZER)
    'stopRecognizer'
    """
    return f"stop{role.value}"


def prompt_set_names() -> list[str]:
    """Return the names of all built-in prompt sets."""
    files = resources.files(__package__).iterdir()
    return sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml"))


def is_uri(prompts: str) -> bool:
    """Return whether a value of ``model.prompts`` is a URI and not the name of a built-in set.

    Examples
    --------
    >>> is_uri("data://mine/prompts.yaml"), is_uri("chat-v1")
    (True, False)
    """
    return "://" in prompts


@cache
def built_in_texts(name: str) -> PromptTexts:
    """Return the texts of a built-in set.

    Parameters
    ----------
    name
        The set's name, as in ``model.prompts``.

    Raises
    ------
    BadInput
        If there is no such set.
    """
    if name not in prompt_set_names():
        raise BadInput(
            f"`model.prompts` is {name}: there is no such set (there are: "
            f"{', '.join(prompt_set_names())})"
        )
    text = (resources.files(__package__) / f"{name}.yaml").read_text(encoding="utf-8")
    return parse_prompt_file(text.encode(), name)


def parse_prompt_file(data: bytes, place: str) -> PromptTexts:
    """Return the texts of a YAML or JSON document.

    Parameters
    ----------
    data
        The bytes of the file.
    place
        Its URI, or the name of a built-in set.

    Raises
    ------
    BadInput
        If the document has a wrong form: it is too large, no YAML, has an unknown name, or a value
        of a wrong type. The message names it.
    """
    where = f"`model.prompts` is {place}"
    if len(data) > MAX_FILE:
        raise BadInput(
            f"{where}: the file has more than {MAX_FILE} bytes, which no prompt set needs"
        )
    try:
        text = data.decode("utf-8-sig")
        document = json.loads(text) if place.endswith(".json") else parse_yaml(text)[0]
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{where}: byte {error.start} is not UTF-8: save the file as UTF-8"
        ) from None
    except PARSE_ERRORS as error:
        reason = error_line(error)
        raise BadInput(f"{where}: the file is neither YAML nor JSON: {reason}") from None
    if not isinstance(document, dict):
        raise BadInput(f"{where}: the file must have names and texts, as `recognize: …`")
    return _from_document(document, place, where)


def _from_document(document: dict[object, object], place: str, where: str) -> PromptTexts:
    known = ("name", "chat", *TEXT_NAMES)
    for name, value in document.items():
        if name not in known:
            raise BadInput(f"{where}: `{name}` is not a part of a prompt set ({', '.join(known)})")
        if name != "chat" and not isinstance(value, str):
            raise BadInput(f"{where}: `{name}` must be a text")
    chat = document.get("chat", True)
    if not isinstance(chat, bool):
        raise BadInput(f"{where}: `chat` must be true or false")
    missing = [name for name in TEMPLATE_NAMES if name not in document]
    if missing:
        raise BadInput(f"{where}: `{missing[0]}` is missing: it is the template of a role's prompt")
    given = {str(name): str(value) for name, value in document.items() if name in TEXT_NAMES}
    for name, text in given.items():
        if len(text) > MAX_TEXT:
            raise BadInput(f"{where}: `{name}` has {len(text)} characters, more than {MAX_TEXT}")
    return PromptTexts(place, chat, {**_DEFAULTS[chat], **given})
