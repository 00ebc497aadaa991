"""Field types that several parts of the spec share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

#: Marks a setting that has no field in the CRD: a recipe sets it, and `spec.overrides` replaces it.
EXPERT = Field(json_schema_extra={"x-selfemo-expert": True})
#: Marks a required value that the CRD does not require, because a preset may provide it.
FROM_PRESET = Field(json_schema_extra={"x-selfemo-optional": True})

#: An emotion, in any script. Commas, semicolons, colons and double quotes would be ambiguous in
#: answers and in lists on a command line. `\s` alone matches ASCII whitespace in Go, and all
#: whitespace in Rust: with `\p{Z}`, the API server and pydantic agree.
Emotion = Annotated[
    str,
    Field(
        min_length=1,
        max_length=64,
        pattern=r'^[^\s\p{Z},;:"\p{Cc}]([^,;:"\p{Cc}]*[^\s\p{Z},;:"\p{Cc}])?$',
    ),
]
#: A location that stages read from.
Uri = Annotated[str, Field(min_length=6, max_length=1024, pattern=r"^(hf|s3|file|data)://.+$")]
#: A location that a model is read from.
ModelUri = Annotated[
    str, Field(min_length=6, max_length=1024, pattern=r"^(hf|s3|file|data|package)://.+$")
]
#: A location that stages read from and write to.
StorageUri = Annotated[str, Field(min_length=6, max_length=1024, pattern=r"^(s3|file)://.+$")]
#: The CEL expression of a rule: a URI contains no space.
NO_BLANK = "!self.uri.contains(' ')"
NO_BLANK_MESSAGE = "`uri` must not contain a space: write it as %20"
