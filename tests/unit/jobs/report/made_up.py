"""A made-up run, written into a store in the layout of the stages."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tests.unit.jobs.report.made_up_answers import put_answers

from selfemo_api import dataset_labels
from selfemo_api.results import SourceScore
from selfemo_api.stages import STAGE_ORDER, Stage, stage_prefix, stages_of
from selfemo_jobs.runtime.manifest import Manifest, Part
from selfemo_jobs.runtime.schemas import SCORED
from selfemo_jobs.runtime.tables import encode_table
from selfemo_jobs.store import Store, join
from selfemo_jobs.store.hashing import sha256

RUN = "default/demo-00000000"
LABELS = dataset_labels.MELD
SOURCES = ("dev", "test")
F1 = (0.4667, 0.4813, 0.4762, 0.4990)
HOSTILE = '<script>alert("x")</script> & "quoted"'


def confusion(generation: int) -> list[list[int]]:
    size = len(LABELS)
    return [
        [
            (60 + 5 * generation) * (size - i) if i == j else 3 * ((i + j + generation) % 4)
            for j in range(size)
        ]
        for i in range(size)
    ]


def score(source: str, generation: int, reduction: float = 0.0) -> SourceScore:
    f1 = F1[generation] - reduction
    return SourceScore(
        source=source,
        utterances=1109,
        weighted_f1=f1,
        weighted_f1_low=f1 - 0.027,
        weighted_f1_high=f1 + 0.026,
        strict_weighted_f1=f1 - 0.004,
        macro_f1=f1 - 0.12,
        accuracy=f1 + 0.06,
        unparsable=0.013 / (generation + 1),
        label_entropy=0.74 - 0.03 * generation,
        f1_by_label=[max(0.0, 0.72 - 0.11 * i + 0.015 * generation) for i in range(len(LABELS))],
        predicted_shares=[1 / len(LABELS)] * len(LABELS),
    )


def rows(generation: int) -> list[dict[str, Any]]:
    table = []
    for group in range(6):
        responder = group % 2 == 1
        for member in range(4):
            table.append(
                {
                    "group_id": f"g{group}",
                    "role": "Responder" if responder else "Recognizer",
                    "generation": generation,
                    "source": "meld",
                    "dialogue_id": f"d{group}",
                    "utterance": 2,
                    "turn": 0,
                    "member": member,
                    "context": [
                        {"speaker": "Monica", "text": "You got the job?"},
                        {"speaker": HOSTILE, "text": "They called this morning."},
                    ],
                    "speaker": "Rachel",
                    "target": None if responder else HOSTILE,
                    "intended": ["joy"] if responder else None,
                    "gold": None,
                    "prompt_ids": [1],
                    "completion_ids": [2],
                    "logprobs": [-0.1],
                    "views": [],
                    "confidence": 1.0,
                    "completion": f"That is wonderful! {HOSTILE}" if responder else "joy",
                    "labels": None if responder else ["joy", "surprise"][: member % 2 + 1],
                    "well_formed": member != 3,
                    "finished": True,
                    "chosen": responder and member == 0,
                    "consensus": ["joy"],
                    "alignment": 0.5,
                    "agreement": 0.5,
                    "format": 1.0,
                    "penalty": 0.0,
                    "reward": 0.9 - 0.1 * member - 0.05 * group,
                    "consistency": 0.8 - 0.1 * group,
                    "advantage": 1.2 - 0.8 * member,
                }
            )
    return table


#: The fields of the manifests that are the same in each generation.
CONSTANT: dict[Stage, dict[str, Any]] = {
    Stage.PUBLISH: {},
    Stage.CHECK: {
        "metrics": {
            "dialogues": 1309,
            "utterances": 13118,
            "warnings": 0,
            "parameters": 49_552_704,
        },
        "report": {
            "warnings": [],
            "sources": {
                "train": {"dialogues": 1000, "utterances": 9989, "labeled": 0},
                "train-labeled": {"dialogues": 38, "utterances": 362, "labeled": 353},
                "dev": {"dialogues": 114, "utterances": 1109, "labeled": 1109},
                "test": {"dialogues": 157, "utterances": 1658, "labeled": 1109},
            },
            "model": {"type": "llama", "layers": 6, "hiddenSize": 576},
        },
    },
    Stage.WARM_START: {
        "model": "model",
        "metrics": {
            "steps": 120,
            "bestStep": 80,
            "utterances": 1006,
            "examples": 3871,
            "loss": 0.9,
            "weightedF1Before": 0.1812,
            "weightedF1": 0.4667,
        },
        "report": {
            "selectionDataset": "dev",
            "evaluations": [
                {"step": 40 * i, "weightedF1": f1, "loss": 2.5 / i if i else None}
                for i, f1 in enumerate([0.1812, 0.4011, 0.4667, 0.4530])
            ],
        },
    },
}


def content(stage: Stage, generation: int) -> dict[str, Any]:
    """Return the fields of the manifest that only this stage has."""
    g = generation
    if stage in CONSTANT:
        return CONSTANT[stage]
    if stage is Stage.SELF_PLAY:
        metrics = {"candidates": 8304, "groups": 1038, "tokens": 91344 + g}
        return {"metrics": {**metrics, "diversity": 0.41 - 0.02 * g, "wellFormed": 0.97}}
    if stage is Stage.SCORE:
        counts = [12, 40, 160, 420, 980, 1500, 2100, 1700, 1000, 392]
        edges = [round(-0.5 + 0.15 * i, 2) for i in range(11)]
        return {
            "metrics": {
                "rewardMean": 0.55 + 0.03 * g,
                "rewardStd": 0.21,
                "consistencyMean": 0.62 + 0.02 * g,
                "zeroVarianceShare": 0.1 * g,
                "alignmentMean": 0.58,
                "penaltyMean": 0.03,
                "groups": 1038,
            },
            "report": {"rewardHistogram": {"edges": edges, "counts": counts}},
        }
    if stage is Stage.FLYWHEEL:
        steps = [
            ("minimum reward", 1038, 900),
            ("consistency band", 900, 720),
            ("exact duplicates", 720, 716),
            ("near duplicates", 716, 690),
            ("balance cap", 690, 512),
        ]
        return {
            "metrics": {"kept": 4916, "keptGroups": 614, "replayed": 102, "labelEntropy": 0.81},
            "report": {
                "funnel": [{"filter": n, "before": b, "after": a} for n, b, a in steps],
                "labels": {"neutral": 250, "joy": 120, "anger": 80, "surprise": 40, "sadness": 22},
            },
        }
    if stage is Stage.TRAIN:
        return {
            "model": "model",
            "metrics": {
                "loss": 0.0123,
                "kl": 0.0041,
                "clipLow": 0.01,
                "clipHigh": 0.02,
                "gradNorm": 0.7,
                "steps": 76,
                "tokens": 81234,
            },
        }
    report = {
        "confusion": confusion(g),
        "labels": list(LABELS),
        "support": [sum(row) for row in confusion(g)],
    }
    return {
        "scores": [score("dev", g), score("test", g, 0.02)],
        "report": {
            "sources": {name: {**report, "sha256": sha256(name.encode())} for name in SOURCES}
        },
    }


def run_record(generation: int, stage: Stage) -> dict[str, Any]:
    """Return the record of times and machine. A training has two GPUs."""
    gpus = 2 if stage is Stage.TRAIN else 0
    index = STAGE_ORDER.index(stage)
    return {
        "seconds": 20.0 + 90.0 * index,
        "finishedTime": 1_795_880_000.0 + 10_000 * generation + 1000 * index,
        "gpus": gpus,
        "machine": {"processor": "Some CPU", "cores": 16, "gpus": ["NVIDIA H100"] * gpus},
    }


def configuration(stage: Stage, policy: str) -> dict[str, Any]:
    """Return the settings of a stage that the report reads."""
    sources = [
        {"name": name, "uri": f"data://meld/{name}.csv", "use": use}
        for name, use in {"train": "SelfPlay", "train-labeled": "Labeled"}.items()
    ]
    evaluation = [
        {"name": name, "uri": f"data://meld/{name}.csv", "use": "Evaluation"} for name in SOURCES
    ]
    common = {"policyUri": policy, "dataset.labels": list(LABELS)}
    if stage is Stage.CHECK:
        return {
            **common,
            "dataset.sources.selfPlay": sources,
            "dataset.sources.evaluation": evaluation,
        }
    if stage is Stage.EVALUATE:
        return {
            **common,
            "evaluation": {"bootstrap": 200, "batchSize": 64},
            "selfPlay.engine": "Transformers",
        }
    return common


def write_run(
    store: Store,
    until: tuple[int, Stage] | None = None,
    *,
    warm_start: bool = False,
    answers: bool = False,
    run_name: str = RUN,
) -> str:
    """Write generations 0 to 3, or those up to a stage, and return the run's URI.

    With ``answers``, the predictions and the dialogues are written, too.
    """
    run = join(store.storage.uri, run_name)
    policy, best = "file:///models/start", 0
    for generation in range(len(F1)):
        parents: dict[str, str] = {}
        for stage in stages_of(generation, warm_start=warm_start):
            folder = join(run, stage_prefix(generation, stage))
            parts = []
            if stage is Stage.SCORE:
                import pyarrow as pa

                data = encode_table(pa.Table.from_pylist(rows(generation), schema=SCORED))
                store.put(join(folder, "part-00000.parquet"), data)
                parts = [
                    Part(path="part-00000.parquet", sha256=sha256(data), size=len(data), rows=24)
                ]
            if stage is Stage.EVALUATE and answers:
                for source in SOURCES:
                    parts += put_answers(store, folder, source, LABELS, generation, HOSTILE)
            manifest = Manifest(
                run=run_name,
                stage=stage,
                generation=generation,
                seed=1000 + generation,
                config_sha256=hashlib.sha256(folder.encode()).hexdigest(),
                config=configuration(stage, policy),
                parents=dict(parents),
                parts=parts,
                rows=8304,
                versions={"torch": "2.13.0", "transformers": "5.17.0"},
                **content(stage, generation),
            )
            store.put(join(folder, "manifest.json"), manifest.encode())
            store.put(join(folder, "run.json"), json.dumps(run_record(generation, stage)).encode())
            parents[stage.slug] = sha256(manifest.encode())
            if until == (generation, stage):
                return run
        if F1[generation] > F1[best]:
            best = generation
            policy = f"storage:/{run_name}/{stage_prefix(generation, Stage.TRAIN)}/model"
    return run
