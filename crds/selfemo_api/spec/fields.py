"""Field types that several parts of the spec share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

#: An emotion: a lower-case word, or several joined by hyphens.
Emotion = Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[a-z][a-z-]*$")]
#: A place that stages read from.
Uri = Annotated[str, Field(min_length=6, max_length=1024, pattern=r"^(hf|s3|file|data)://[^\s]+$")]
#: A place that stages read from and write to.
StorageUri = Annotated[str, Field(min_length=6, max_length=1024, pattern=r"^(s3|file)://[^\s]+$")]
