"""Tests of the places of a run's models."""

from __future__ import annotations

import pytest

from selfemo_jobs.models.run_models import parse_run_model

RUN = "file:///storage/default/demo-01234567"


def test_a_trained_model_has_a_baseline_and_a_report_in_its_run() -> None:
    model = parse_run_model(f"{RUN}/generations/002/train/model-0123456789ab")
    assert model is not None
    assert model.baseline_uri == f"{RUN}/generations/000/evaluate/manifest.json"
    assert model.report_uri == f"{RUN}/report.html"
    first = parse_run_model(f"{RUN}/generations/000/warmstart/model")
    assert first is not None
    assert first.baseline_uri is None


@pytest.mark.parametrize("uri", ["hf://owner/name", "s3://bucket/model", "file:///models/demo"])
def test_a_copied_model_has_no_run(uri: str) -> None:
    assert parse_run_model(uri) is None
