"""What all tests of the commands share."""

from __future__ import annotations

import pytest

from selfemo_operator.cli.session import SESSION


@pytest.fixture(autouse=True)
def _new_session() -> None:
    """Forget the options of the command that an earlier test has run in this process."""
    SESSION.begin("selfemo")
