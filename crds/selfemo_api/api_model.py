"""What every type of the API shares: camelCase names, no unknown fields, and the CEL rules.

A rule is written once, as CEL. The generated CRD carries it to the API server, and
:mod:`selfemo_api.schema.validation` runs the same expression on a local file, so both give the
same message.
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
        CEL over ``self`` (and ``oldSelf`` for a transition rule).
    message
        What a person reads when it does not hold. Field names stand in back-quotes.
    """

    expression: str
    message: str

    @property
    def is_transition(self) -> bool:
        """Whether the rule compares an edit with what was there before."""
        return "oldSelf" in self.expression


class ApiModel(BaseModel):
    """Base of all API types: camelCase outside, snake_case inside, unknown fields refused."""

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
        """Return the JSON form: camelCase keys, unset optional fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def first_problem(error: ValidationError) -> tuple[str, str]:
    """Return the field (dotted; empty for the whole) and the words of an error's first problem."""
    first = error.errors()[0]
    return ".".join(str(part) for part in first["loc"]), first["msg"]


#: A Kubernetes object that selfemo passes through without reading it (an affinity, a volume …).
JsonObject = Annotated[
    dict[str, Any],
    WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
]

#: Text of at most one line's length, where nothing shorter is natural.
ShortText = Annotated[str, Field(min_length=1, max_length=253)]

#: A part of a whole.
Share = Annotated[float, Field(ge=0.0, le=1.0)]

#: Names that become part of a Kubernetes name or of a metric label.
DnsLabel = Annotated[
    str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
]
