"""The typed update of a status names every field of the status, with the field's own type."""

from __future__ import annotations

from typing import get_type_hints

from selfemo_api.status import EvolutionStatus
from selfemo_operator.planner.types import StatusChanges


def test_a_typed_update_has_the_fields_of_the_status() -> None:
    hints = get_type_hints(EvolutionStatus)
    fields = {name: hints[name] for name in EvolutionStatus.model_fields}
    assert get_type_hints(StatusChanges) == fields
