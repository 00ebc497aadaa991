"""Writes the figures of a run to experiment trackers, such as MLflow."""

from selfemo_jobs.trackers.sink import missing_libraries
from selfemo_jobs.trackers.track import track_generation

__all__ = ["missing_libraries", "track_generation"]
