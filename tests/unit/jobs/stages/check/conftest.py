"""Fixtures of the check's tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.unit.jobs.stages.check.world import World

from selfemo_api.contract import ENV_DATA, ENV_PARENT, ENV_RENDEZVOUS, ENV_SHARD
from selfemo_jobs.stages.check import machine


@pytest.fixture
def world(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """An input without a problem, for a run on this machine, which has no GPU."""
    monkeypatch.setenv(ENV_PARENT, str(os.getpid()))
    for name in (ENV_DATA, ENV_RENDEZVOUS, ENV_SHARD, "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(machine, "local_gpus", list)
    return World(tmp_path, tiny_model)
