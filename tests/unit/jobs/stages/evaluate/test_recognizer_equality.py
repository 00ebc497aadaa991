"""A recognizer predicts what the evaluate stage stores, label by label."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.scored_models import make_sharp

from selfemo_api.contract import ENV_TERMINATION_LOG, ENV_WORK, StageConfig
from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import Stage
from selfemo_jobs.datasets.load import load_source
from selfemo_jobs.evaluation.prediction_table import PREDICTIONS
from selfemo_jobs.inference import Recognizer, recognizer
from selfemo_jobs.models.model_description import describe_spec
from selfemo_jobs.runtime.manifest import read_manifest
from selfemo_jobs.runtime.tables import read_tables
from selfemo_jobs.stages.evaluate import stage
from selfemo_jobs.stages.evaluate.stage import PROGRAM
from selfemo_jobs.store import open_store

LINE = "oh no well I like it you know what we do about that joy fear surprise all out"
WORDS = LINE.split(" ")


@pytest.fixture
def config(
    tmp_path: Path,
    tiny_model: Path,
    make_spec: Callable[..., EvolutionSpec],
    make_config: Callable[..., StageConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., StageConfig]:
    """An evaluation of a model with sharp distributions on dialogues of many lengths."""
    monkeypatch.setenv(ENV_WORK, str(tmp_path / "work"))
    monkeypatch.setenv(ENV_TERMINATION_LOG, str(tmp_path / "log"))
    make_sharp(tmp_path / "model", tiny_model)

    def build(labeled: Callable[[int], bool], **changes: Any) -> StageConfig:
        lines = []
        for d in range(8):
            turns: list[dict[str, Any]] = []
            for i in range(5):
                number = d * 5 + i
                text = " ".join(WORDS[(number * 7 + j * 3) % len(WORDS)] for j in range(1 + i * d))
                turn = {"speaker": "AB"[i % 2], "text": text}
                turns.append(turn | ({"labels": ["joy"]} if labeled(number) else {}))
            lines.append(json.dumps({"id": f"d{d}", "turns": turns}))
        (tmp_path / "dev.jsonl").write_text("\n".join(lines) + "\n")
        source = {"uri": f"file://{tmp_path}/dev.jsonl", "format": "JSONL"}
        spec = make_spec(
            **{
                "dataset": {
                    "context": {"past": 2, "future": 1},
                    "sources": [
                        {"name": "train", "use": "SelfPlay", **source},
                        {"name": "dev", "use": "Evaluation", **source},
                    ],
                },
                "evaluation": {"bootstrap": 0, "batchSize": 4},
                **changes,
                "selfPlay": {"roles": ["Recognizer"], **changes.get("selfPlay", {})},
            }
        )
        return make_config(Stage.EVALUATE, generation=0, spec=spec)

    return build


@pytest.mark.parametrize("prompts", ["compact-v1", "chat-v1"])
@pytest.mark.parametrize(
    ("labeled", "dtype"),
    # with some turns unlabeled, batches differ, and so do the last digits of bfloat16
    [("all", "float32"), ("all", "bfloat16"), ("some", "float32")],
)
def test_a_recognizer_predicts_what_is_stored(
    config: Callable[..., StageConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prompts: str,
    dtype: str,
    labeled: str,
) -> None:
    if labeled == "all":
        monkeypatch.setattr(stage, "PART_PROMPTS", 15)
        monkeypatch.setattr(recognizer, "PART_PROMPTS", 15)
    configuration = config(
        lambda number: labeled == "all" or number % 3 == 0,
        model={"uri": f"file://{tmp_path}/model", "prompts": prompts, "maxPromptTokens": 512},
        selfPlay={"engineArgs": {"dtype": dtype}, "maxTokens": {"recognizer": 6}},
    )
    spec = configuration.spec
    result = PROGRAM.run(configuration)
    store = open_store(spec.storage)
    manifest, _ = read_manifest(store, result.manifest)  # type: ignore[union-attr]
    tables = read_tables(store, f"{configuration.output}/manifest.json", manifest, PREDICTIONS)
    rows = [row for table in tables for row in table.to_pylist()]
    dialogues = load_source(
        spec.dataset.evaluation[0], spec.dataset.labels, tmp_path / "dev.jsonl", read_labels=False
    )
    with Recognizer(tmp_path / "model", describe_spec(spec)) as loaded:
        by_place = {(p.dialogue_id, p.utterance): p for p in loaded.predict(dialogues)}
    assert len(by_place) == 40, "turns without labels are predicted too"
    assert len(rows) == (40 if labeled == "all" else 14)
    for row in rows:
        prediction = by_place[row["dialogue_id"], row["utterance"]]
        assert list(prediction.labels) == row["predicted"]
        assert prediction.answer == row["answer"]
        assert prediction.well_formed == row["well_formed"]
        assert 0.0 <= row["probability"] < 1.0
    assert len({row["answer"] for row in rows}) > 5, "answers differ"
