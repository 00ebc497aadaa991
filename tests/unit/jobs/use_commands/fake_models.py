"""Models that need no weights: what `selfemo predict` and others do around a model is tested."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import pytest

from selfemo_jobs.inference import Target
from selfemo_jobs.store.hashing import sha256
from selfemo_jobs.use_commands.prediction_rows import PredictedTurn

LABELS = ["joy", "sadness", "anger"]


def model_folder(folder: Path) -> Path:
    """Write a folder that looks like a model's, with a description."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "qwen3"}')
    (folder / "model.safetensors").write_bytes(_no_tensors())
    description = {
        "apiVersion": "selfemo.dev/v1alpha1",
        "kind": "ModelDescription",
        "labels": LABELS,
        "context": {"past": 2, "future": 1},
        "prompts": {"name": "compact-v1", "chat": False, "texts": _texts()},
    }
    (folder / "selfemo.json").write_text(json.dumps(description))
    return folder


def _texts() -> dict[str, str]:
    from selfemo_jobs.prompts.prompt_texts import built_in_texts

    return dict(built_in_texts("compact-v1").texts)


def _no_tensors() -> bytes:
    return (2).to_bytes(8, "little") + b"{}"


class FakePredictor:
    """Predicts from a hash of what a prompt would show. It counts how often it is loaded."""

    loads = 0
    calls = 0

    def __init__(self, *_: Any, probabilities: bool = True) -> None:
        self._probabilities = probabilities
        self._loaded = False
        self.load_seconds = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def load(self) -> None:
        FakePredictor.loads += not self._loaded
        self._loaded = True
        self.load_seconds = 1.0

    def warnings(self) -> list[str]:
        return []

    def __call__(self, targets: Sequence[Target]) -> list[PredictedTurn]:
        FakePredictor.calls += 1
        return [self._turn(target) for target in targets]

    def _turn(self, target: Target) -> PredictedTurn:
        shown = [*target.past, target.turn, *target.future]
        digest = sha256("|".join(f"{turn.speaker}: {turn.text}" for turn in shown).encode())
        weights = [int(digest[i : i + 4], 16) + 1 for i in (0, 4, 8)]
        shares = {x: weight / sum(weights) for x, weight in zip(LABELS, weights, strict=True)}
        label = max(shares, key=lambda name: shares[name])
        speaker, text = target.turn.speaker, target.turn.text
        probabilities = shares if self._probabilities else None
        place = target.dialogue_id, target.utterance
        return PredictedTurn(*place, speaker, text, [label], probabilities)


def use_fake_predictor(monkeypatch: pytest.MonkeyPatch) -> type[FakePredictor]:
    """Let `selfemo predict` use a :class:`FakePredictor`, and count from zero."""
    monkeypatch.setattr("selfemo_jobs.use_commands.turn_predictor.TurnPredictor", FakePredictor)
    FakePredictor.loads = FakePredictor.calls = 0
    return FakePredictor
