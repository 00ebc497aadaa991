"""Ten lines and `kubectl apply`: a warm start and two generations, with no step on a laptop.

The dialogues and the results are in S3, and the model is one that no one has trained before. The
recipe gives every tunable its value.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from selfemo_api.recipes import recipe_values
from tests.e2e.conftest import ROOT, Json, Kubectl, pod_template, s3_client, wait_status
from tests.support.cluster import S3

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(3400),
    pytest.mark.xdist_group("pods-1"),
]

#: The recipe is the fastest: with the default one, a step of the warm start takes four seconds.
#: `podTemplate` stands in for an image of the jobs, which has six gigabytes: it mounts the
#: environment.
TEN_LINES = """\
apiVersion: selfemo.dev/v1alpha1
kind: EmotionEvolution
metadata: {{name: ten}}
spec:
  recipe: small-v1
  model: {{uri: "package://smollm2?layers=6"}}
  dataset: {{preset: MELD, uri: "{data}", labeledDialogues: 30}}
  storage:
    {{uri: "{data}/runs", endpoint: "{s3}", pathStyle: true, credentialsSecretRef: {{name: s3}}}}
  podTemplate: [{{template: {pod}}}]
"""
#: All that the API server adds to the ten lines: settings of the infrastructure, no tunables.
ADDED: Json = {
    "ablation": "None",
    "seed": 0,
    "storage": {"checksums": "WhenSupported", "whenDeleted": "Retain", "keep": "All"},
    "resources": {"accelerator": "nvidia.com/gpu"},
    "suspend": False,
    "failurePolicy": {"maxAttempts": 3},
    "deadlines": {"stagePendingSeconds": 1800},
}
#: The dialogues of each file, from the demo's: enough to learn from, and few enough for minutes.
DIALOGUES = {"train": 60, "dev": 16, "test": 16}
#: The stages whose time is in the history. Publish follows once the outcome is recorded.
STAGES = ["SelfPlay", "Score", "Flywheel", "Train", "Evaluate"]


def meld_file(part: str, count: int) -> str:
    """Return dialogues of the demo in the layout of MELD's published files."""
    text = io.StringIO()
    columns = ("Sr No.", "Utterance", "Speaker", "Emotion", "Sentiment")
    table = csv.writer(text)
    table.writerow((*columns, "Dialogue_ID", "Utterance_ID"))
    lines = (ROOT / "examples" / "demo" / f"{part}.jsonl").read_text().splitlines()
    for number, line in enumerate(lines[:count]):
        for index, turn in enumerate(json.loads(line)["turns"]):
            emotion = turn["labels"][0]
            table.writerow((1, turn["text"], turn["speaker"], emotion, "-", number, index))
    return text.getvalue()


@pytest.fixture
def data(prepared: S3, stored: str, namespace: str) -> str:
    """A prefix in the cluster's S3 with the three files of MELD's layout."""
    prefix = f"{stored}/{namespace}"
    for part, count in DIALOGUES.items():
        put(prepared, f"{prefix}/{part}_sent_emo.csv", meld_file(part, count))
    return prefix


def put(s3: S3, uri: str, text: str) -> None:
    """Store a text in the cluster's S3."""
    key = uri.removeprefix(f"s3://{s3.bucket}/")
    s3_client(s3).put_object(Bucket=s3.bucket, Key=key, Body=text.encode())


@pytest.fixture
def ten_lines(prepared: S3, data: str) -> str:
    """The resource of at most ten lines."""
    pod = json.dumps(pod_template())
    return TEN_LINES.format(data=data, s3=prepared.endpoint, pod=pod)


def deeply_merged(base: Json, changes: Json) -> Json:
    result = dict(base)
    for name, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(name), dict)
        result[name] = deeply_merged(result[name], value) if both else value
    return result


def manifests(s3: S3, model: str) -> dict[str, Json]:
    """Return the manifests of a run by their paths, from the URI of one of its models."""
    storage, bucket = s3_client(s3), s3.bucket
    folder = model.removeprefix(f"s3://{bucket}/").partition("/generations/")[0] + "/generations/"
    listed = storage.list_objects_v2(Bucket=bucket, Prefix=folder)["Contents"]
    keys = [o["Key"] for o in listed if o["Key"].endswith("/manifest.json")]
    return {
        key.removeprefix(folder).removesuffix("/manifest.json"): json.loads(
            storage.get_object(Bucket=bucket, Key=key)["Body"].read()
        )
        for key in keys
    }


def events(kubectl: Kubectl, name: str) -> list[Json]:
    """Return the Events of an evolution, oldest first."""
    selector = f"involvedObject.kind=EmotionEvolution,involvedObject.name={name}"
    items = json.loads(kubectl("get", "events", "--field-selector", selector, "--output", "json"))[
        "items"
    ]
    return sorted(items, key=lambda event: str(event["eventTime"]))


def test_ten_lines_run_a_warm_start_and_two_generations(
    install: Callable[..., Any], kubectl: Kubectl, ten_lines: str, prepared: S3
) -> None:
    assert len([line for line in ten_lines.splitlines() if line.strip()]) <= 10
    written = yaml.safe_load(ten_lines)["spec"]
    install({})
    kubectl("apply", "--filename", "-", stdin=ten_lines)
    assert kubectl.get("emo/ten")["spec"] == deeply_merged(written, ADDED)

    shown: set[str] = set()

    def is_finished(status: Json) -> bool:
        for condition in status.get("conditions", []):
            if condition["type"] == "Progressing":
                shown.add(condition["message"])
        return "completionTime" in status

    status = wait_status(kubectl, is_finished, "the end", 3000, name="ten")
    assert status["phase"] == "Succeeded", kubectl("describe", "emo", "ten")
    assert kubectl.get("emo/ten")["spec"] == deeply_merged(written, ADDED)
    _check_status(status)
    _check_manifests(manifests(prepared, status["baselineUri"]), status)
    _check_published(prepared, status)
    for place in ("0, Check", "0, WarmStart", "0, Evaluate", "1, SelfPlay", "1, Train"):
        assert f"generation {place}, attempt 1" in shown
    messages = {event["reason"]: event["message"] for event in events(kubectl, "ten")}
    assert "generation 0, Check: no problems in" in messages["InputChecked"]
    assert "generation 0, WarmStart: weighted F1" in messages["WarmStarted"]
    assert "GenerationBaseline" in messages
    described = kubectl("describe", "emo", "ten")
    assert "InputChecked" in described and "WarmStarted" in described


def _check_status(status: Json) -> None:
    """Check the models, the label prior and the history of the finished run."""
    history = status["history"]
    assert [record["generation"] for record in history] == [0, 1, 2]
    assert history[0]["outcome"] == "Baseline"
    assert sorted(history[0]["stageSeconds"]) == ["Check", "Evaluate", "WarmStart"]
    assert all(sorted(record["stageSeconds"]) == sorted(STAGES) for record in history[1:])
    assert all(record["kept"] > 0 for record in history[1:])
    # the model of generation 0 is the one that the warm start made
    assert "/generations/000/warmstart/" in status["baselineUri"]
    assert history[0]["modelUri"] == status["baselineUri"]
    best = history[1] if history[1]["outcome"] == "Promoted" else history[0]
    assert status["current"]["judgeUri"] == best["modelUri"]
    assert status["current"]["policyUri"] == best["modelUri"]
    labeled = meld_file("train", 30)
    emotions = [row["Emotion"] for row in csv.DictReader(io.StringIO(labeled))]
    shares = {label: emotions.count(label) / len(emotions) for label in status["labelPrior"]}
    assert len(shares) == 7
    assert status["labelPrior"] == pytest.approx(shares)
    assert status["current"].get("changes", []) == []
    spec = status["current"]["spec"]
    assert spec["dataset"]["labelPrior"] == status["labelPrior"]
    recipe = recipe_values("small-v1")
    assert spec["warmStart"]["steps"] == recipe["warmStart"]["steps"]
    assert spec["training"]["imitation"] == recipe["training"]["imitation"]
    assert spec["model"]["uri"] == "package://smollm2?layers=6"


def _check_manifests(made: dict[str, Json], status: Json) -> None:
    """Check that each stage has one manifest in S3, and that training was from the warm start."""
    first = ["000/check", "000/evaluate", "000/warmstart", "000/publish"]
    stages = [*STAGES, "Publish"]
    later = [f"{number:03d}/{stage.lower()}" for number in (1, 2) for stage in stages]
    assert sorted(made) == sorted([*first, *later])
    metrics = made["000/warmstart"]["metrics"]
    assert metrics["weightedF1"] >= metrics["weightedF1Before"]
    assert made["000/evaluate"]["scores"][0]["source"] == "dev"
    assert made["000/evaluate"]["scores"][0]["weightedF1"] == status["history"][0]["f1"]
    assert made["000/evaluate"]["scores"][0]["weightedF1"] == pytest.approx(metrics["weightedF1"])


def _check_published(s3: S3, status: Json) -> None:
    """Check what Publish has written to the folder of the run."""
    storage, prefix = s3_client(s3), f"s3://{s3.bucket}/"
    run = status["uri"].removeprefix(prefix)

    def read(path: str) -> bytes:
        return bytes(storage.get_object(Bucket=s3.bucket, Key=f"{run}/{path}")["Body"].read())

    best = json.loads(read("best/manifest.json"))
    assert best["generation"] == status["best"]["generation"]
    assert f"{status['uri']}/{best['model']}" == status["best"]["modelUri"]
    described = json.loads(read(f"{best['model']}/selfemo.json"))
    assert described["scores"][0]["weightedF1"] == status["best"]["f1"]
    assert read(f"{best['model']}/README.md").startswith(b"---")
    assert read("report.html").startswith(b"<!")


def test_kubectl_explain_has_words_for_each_field(
    install: Callable[..., Any], kubectl: Kubectl
) -> None:
    install({})
    served = json.loads(kubectl("get", "--raw", "/openapi/v3/apis/selfemo.dev/v1alpha1"))
    schema = served["components"]["schemas"]["dev.selfemo.v1alpha1.EmotionEvolution"]
    fields = dict(_fields(schema["properties"]["spec"], "spec"))
    assert len(fields) > 60
    assert [path for path, text in fields.items() if len(text.split()) < 3] == []
    groups = {path.rpartition(".")[0] for path in fields}
    for group in sorted(groups):
        shown = kubectl("explain", f"emotionevolution.{group}")
        words = " ".join(shown.split())
        for path, text in fields.items():
            parent, _, name = path.rpartition(".")
            if parent == group:
                assert f"{name} <" in words, f"{path} in {shown}"
                assert text.split()[0] in words
                assert " ".join(text.split()) in words, f"{path} in {shown}"


def _fields(schema: Json, path: str) -> Iterator[tuple[str, str]]:
    """Yield the path and the description of each field below a schema."""
    schema = schema.get("items", schema)
    for name, inner in schema.get("properties", {}).items():
        yield f"{path}.{name}", inner.get("description", "")
        yield from _fields(inner, f"{path}.{name}")


def test_all_faults_of_the_input_are_in_a_condition_before_any_other_stage(
    install: Callable[..., Any], kubectl: Kubectl, ten_lines: str, prepared: S3, data: str
) -> None:
    """Four faults: a quantized model, a wrong label, a missing file, too many labeled dialogues."""
    quantized = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "quantization_config": {"quant_method": "gptq", "bits": 4},
    }
    put(prepared, f"{data}/quantized/config.json", json.dumps(quantized))
    dev = meld_file("dev", 3).replace(",neutral,", ",wistful,")
    put(prepared, f"{data}/faulty/dev.csv", dev)
    sources = [
        {"name": "train", "use": "SelfPlay", "uri": f"{data}/train_sent_emo.csv"},
        {"name": "dev", "use": "Evaluation", "uri": f"{data}/faulty/dev.csv"},
        {"name": "more", "use": "SelfPlay", "uri": f"{data}/nowhere/more.csv"},
    ]
    document = yaml.safe_load(ten_lines)
    document["spec"]["model"]["uri"] = f"{data}/quantized"
    document["spec"]["dataset"] = {
        "labeledDialogues": DIALOGUES["train"] + 40,
        "labels": ["neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger"],
        "sources": [{**source, "format": "MELD"} for source in sources],
    }
    install({})
    kubectl.apply(document)
    status = wait_status(kubectl, lambda s: s.get("completionTime"), "the end", 600, name="ten")
    assert status["phase"] == "Failed"
    stalled = next(c for c in status["conditions"] if c["type"] == "Stalled")
    succeeded = next(c for c in status["conditions"] if c["type"] == "Succeeded")
    assert (stalled["status"], stalled["reason"]) == ("True", "BadInput")
    assert (succeeded["status"], succeeded["reason"]) == ("False", "BadInput")
    warning = next(e for e in events(kubectl, "ten") if e["reason"] == "BadInput")
    assert warning["type"] == "Warning"
    for text in (stalled["message"], succeeded["message"], warning["message"]):
        problems = text.splitlines()
        for field, words in FAULTS.items():
            matches = [line for line in problems if line.startswith(f"{field}: ")]
            assert matches and any(words in line for line in matches), f"{field} in {text}"
    jobs = kubectl.get("jobs")["items"]
    assert [job["metadata"]["name"] for job in jobs] == ["ten-g000-check-1"]
    assert status.get("history", []) == []


#: The field of each fault, and words of the line about it.
FAULTS = {
    "model.uri": "quantiz",
    "dataset.sources[1].uri": "wistful",
    "dataset.sources[2].uri": "nowhere",
    "dataset.labeledDialogues": "100",
}
