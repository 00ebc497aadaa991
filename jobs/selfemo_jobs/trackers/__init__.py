"""Writes the figures of a run to an experiment tracker, such as MLflow."""
