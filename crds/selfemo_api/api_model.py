"""The base class of all types of the API, and their CEL rules.

A rule is written once, as a CEL expression. The generated CRD contains it for the API server, and
:mod:`selfemo_api.schema.validation` runs the same expression on a local file. Both give the same
message.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic.alias_generators import to_camel

GROUP = "selfemo.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "EmotionEvolution"


@dataclass(frozen=True)
class Rule:
    """One CEL rule of a type.

    Parameters
    ----------
    expression
        The CEL expression over ``self``, and over ``oldSelf`` for a transition rule.
    message
        The error message if the rule does not hold. Field names are in back-quotes.
    resolved
        Whether the rule needs values that only a recipe may provide. The API server then cannot
        check it: the CRD does not include it, and it is checked when the recipe is applied.
    """

    expression: str
    message: str
    resolved: bool = False

    @property
    def is_transition(self) -> bool:
        """Whether the rule compares the object with its state before an edit."""
        return "oldSelf" in self.expression


class ApiModel(BaseModel):
    """The base of all API types: camelCase in JSON, snake_case in Python, no unknown fields."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object, with camelCase keys and without unset optional fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def to_brief_json(self) -> dict[str, Any]:
        """Return the JSON object without the fields that have their base value.

        Reading it gives an equal object. An older version of the type can read it as long as no
        field that it does not know has another value. So a base value must never change
        (``tests/unit/api/base_values.json``).
        """
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)


def first_problem(error: ValidationError) -> tuple[str, str]:
    """Return the field and the message of the first problem of a validation error.

    Parameters
    ----------
    error
        The error. The field is its dotted path, empty for the object as a whole.
    """
    first = error.errors()[0]
    return ".".join(str(part) for part in first["loc"]), first["msg"]


#: A Kubernetes object that selfemo passes on unread, for example an affinity or a volume.
JsonObject = Annotated[
    dict[str, Any],
    WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
]

#: Text of at most 253 characters, the limit of most names in Kubernetes.
ShortText = Annotated[str, Field(min_length=1, max_length=253)]

#: A fraction, from 0 to 1.
Share = Annotated[float, Field(ge=0.0, le=1.0)]

#: A name that becomes part of a Kubernetes name or of a metric label.
DnsLabel = Annotated[
    str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
]

#: The name of a Kubernetes object, such as a Secret: DNS labels that are joined by dots.
DnsSubdomain = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
    ),
]
