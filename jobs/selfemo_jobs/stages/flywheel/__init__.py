"""The data flywheel: filters on data frames that keep the reliable groups for training."""

from __future__ import annotations

import os

# Daft reads these variables when it is imported. Without them it sends usage data to its
# developers, and draws progress bars between the log lines.
os.environ.update(DAFT_ANALYTICS_ENABLED="0", DO_NOT_TRACK="true", DAFT_PROGRESS_BAR="0")
