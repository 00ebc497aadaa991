"""A program that uses the whole Python API. mypy checks it; nothing runs it."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import selfemo
from selfemo import Dialogue, Evolution, Model, Prediction, Recognizer, Reply, Responder, Turn
from selfemo_api.model_description import ModelDescription
from selfemo_api.stages import Stage
from selfemo_api.status import EvolutionStatus


def use_an_evolution() -> None:
    evolution = Evolution.from_file(
        "evolution.yaml", set={"seed": 3}, data={"demo": Path("data")}, state=Path("state")
    )
    assert_type(evolution.run(), EvolutionStatus)
    evolution.run(on_change=lambda snapshot: print(snapshot.stage, snapshot.done))
    for snapshot in evolution.watch(poll_seconds=0.5):
        assert_type(snapshot, selfemo.Snapshot)
        assert_type(snapshot.status, EvolutionStatus)
        assert_type(snapshot.stage, Stage | None)
        assert_type(snapshot.active, bool)
    assert_type(evolution.status, EvolutionStatus)
    assert_type(evolution.best, Model | None)
    assert_type(evolution.model(2), Model)
    assert_type(evolution.report("report.html"), Path)


def use_models(model: Model) -> None:
    assert_type(model.folder, Path)
    assert_type(model.description, ModelDescription)
    with Recognizer(model, engine="Transformers", engine_args={"batch_size": 8}) as recognizer:
        assert_type(recognizer, Recognizer)
        assert_type(recognizer.predict("We won!"), Prediction)
        assert_type(recognizer.predict(["Ann: We won!", "Bo: At last."]), list[Prediction])
        assert_type(recognizer.predict([("Ann", "We won!")]), list[Prediction])
        assert_type(recognizer.predict([Turn("Ann", "We won!")]), list[Prediction])
        dialogues = [Dialogue(["Ann: We won!"], "d1"), Dialogue([("Bo", "At last.")])]
        assert_type(recognizer.predict(dialogues, probabilities=False), list[list[Prediction]])
        assert_type(
            recognizer.predict(selfemo.read_dialogues("talks.jsonl")), list[list[Prediction]]
        )
        prediction = recognizer.predict("We won!")
        assert_type(prediction.label, str)
        assert_type(prediction.labels, tuple[str, ...])
        assert_type(prediction.probabilities, dict[str, float])
        with Responder("hf://owner/name", judge=recognizer) as responder:
            replies = responder.reply(["Ann: We won!"], emotion="joy", n=3, seed=1, speaker="Bo")
            assert_type(replies, list[Reply])
            assert_type(replies[0].text, str)
            assert_type(replies[0].expresses, bool)


def wrong_use(recognizer: Recognizer, responder: Responder) -> None:
    recognizer.predict(3)  # type: ignore[call-overload]
    recognizer.predict([("Ann", "Hi", "joy")])  # type: ignore[arg-type]
    responder.reply(["Hi"])  # type: ignore[call-arg]
    Recognizer("model", engine="vllm")  # type: ignore[arg-type]
    Evolution.from_file("evolution.yaml", changes={})  # type: ignore[call-arg]
    assert_type(selfemo.__version__, str)
