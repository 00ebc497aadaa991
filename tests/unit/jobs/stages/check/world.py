"""A small, right input for the check, in which tests plant faults."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selfemo_api.contract import StageConfig
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.seeds import stage_seed
from selfemo_api.stages import Stage, stage_prefix
from selfemo_jobs.runtime.context import StageOutput
from selfemo_jobs.stages.check.findings import Findings
from selfemo_jobs.stages.check.stage import find_problems
from selfemo_jobs.store import open_store_later

LABELS = ["neutral", "joy", "sadness", "anger"]
#: Texts that no two dialogues share.
_WORDS = (
    *("morning", "kitchen", "garden", "window", "train", "letter", "river", "market", "winter"),
    *("violin", "harbor", "candle", "mountain", "ticket", "blanket", "mirror", "bridge", "lantern"),
)


class World:
    """Files and a spec without a problem.

    Parameters
    ----------
    folder
        A new folder.
    tiny_model
        The folder of the test model, which is copied.
    """

    def __init__(self, folder: Path, tiny_model: Path) -> None:
        self.folder = folder
        self.model = folder / "model"
        shutil.copytree(tiny_model, self.model)
        for name, start, count in (("train", 0, 6), ("dev", 6, 3), ("extra", 9, 3)):
            self.write_dialogues(name, start, count)
        self.document: dict[str, Any] = {
            "apiVersion": "selfemo.dev/v1alpha1",
            "kind": "EmotionEvolution",
            "metadata": {"name": "checked"},
            "spec": {
                "recipe": "tests-v1",
                "model": {"uri": f"file://{self.model}"},
                "dataset": {
                    "labels": list(LABELS),
                    "labeledDialogues": 2,
                    "sources": [
                        self.source("train", "SelfPlay"),
                        self.source("dev", "Evaluation"),
                        self.source("extra", "Evaluation"),
                    ],
                },
                "storage": {"uri": f"file://{folder}/storage"},
            },
        }

    @property
    def spec(self) -> dict[str, Any]:
        """The spec as a person wrote it."""
        spec: dict[str, Any] = self.document["spec"]
        return spec

    @property
    def sources(self) -> list[dict[str, Any]]:
        """The sources as a person wrote them."""
        sources: list[dict[str, Any]] = self.spec["dataset"]["sources"]
        return sources

    def override(self, **parts: Any) -> None:
        """Set values without a field of their own."""
        self.spec.setdefault("overrides", {}).update(parts)

    def source(self, name: str, use: str) -> dict[str, Any]:
        """Return a source of a file in the folder."""
        return {"name": name, "uri": f"file://{self.folder}/{name}.jsonl", "use": use}

    def write_dialogues(
        self,
        name: str,
        start: int,
        count: int,
        change: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        """Write a file of dialogues. `change` edits each turn."""
        lines = []
        for number in range(start, start + count):
            turns = []
            for index in range(4):
                word = _WORDS[(number + index) % len(_WORDS)]
                turn = {
                    "speaker": "Ann" if index % 2 else "Ben",
                    "text": f"I remember the {word} of dialogue {number} very well, part {index}.",
                    "labels": [LABELS[(number + index) % len(LABELS)]],
                }
                if change:
                    change(turn)
                turns.append(turn)
            lines.append(json.dumps({"id": f"{name}-{number}", "turns": turns}))
        (self.folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")

    def edit_config(self, **changes: Any) -> None:
        """Change values of the model's `config.json`. None removes one."""
        self._edit("config.json", changes)

    def edit_tokenizer(self, **changes: Any) -> None:
        """Change values of the model's `tokenizer_config.json`. None removes one."""
        self._edit("tokenizer_config.json", changes)

    def _edit(self, name: str, changes: dict[str, Any]) -> None:
        path = self.model / name
        content = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))

    def config(self) -> StageConfig:
        """Return the configuration of the check."""
        spec = EmotionEvolution.model_validate(self.document).spec
        run = "default/checked-36f0499c"
        return StageConfig(
            stage=Stage.CHECK,
            run=run,
            generation=0,
            seed=stage_seed(spec.seed, 0, Stage.CHECK),
            spec=spec,
            policy_uri=spec.baseline_uri,
            judge_uri=spec.baseline_uri,
            output=f"{spec.storage.uri}/{run}/{stage_prefix(0, Stage.CHECK)}",
        )

    def check(self) -> tuple[StageOutput, Findings]:
        """Return what the check finds."""
        config, findings = self.config(), Findings()
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        store = open_store_later(config.spec.storage)
        return find_problems(config, store, work, findings), findings

    def problems(self) -> list[str]:
        """Return the problems that the check finds, each as a line."""
        return [str(finding) for finding in self.check()[1].problems]
