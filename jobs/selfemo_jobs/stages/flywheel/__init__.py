"""The data flywheel: a dataframe program that keeps the reliable groups and feeds them back."""

from __future__ import annotations

import os

# Daft reads these as it is imported. It would otherwise report its use to its makers, and draw
# bars between our log lines.
os.environ.update(DAFT_ANALYTICS_ENABLED="0", DO_NOT_TRACK="true", DAFT_PROGRESS_BAR="0")
