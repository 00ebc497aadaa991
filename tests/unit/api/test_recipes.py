"""Recipes: which value a setting gets, and that a recipe never changes under its name."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.api.documents import DEV, SOURCE, documents

from selfemo_api.evolution import EmotionEvolution
from selfemo_api.recipes import (
    RECIPES,
    changed_settings,
    recipe_values,
    resolve,
    with_overrides,
    written_path,
)
from selfemo_api.recipes.presets import PUBLISHED
from selfemo_api.recipes.recipe import (
    in_recipe,
    is_override_only,
    leaves,
    override_only_paths,
    recipe_text,
)
from selfemo_api.schema import recipe_reference
from selfemo_api.schema.validation import check, examine
from selfemo_api.spec import DEFAULT_RECIPE, Ablation, EvolutionSpec, Preset, Use

ROOT = Path(__file__).resolve().parents[3]
DIGESTS = Path(__file__).with_name("recipe_digests.json")
LABELED = {**SOURCE, "name": "labeled", "use": "Labeled"}
SPEC: dict[str, Any] = {
    "model": {"uri": "file:///model"},
    "dataset": {"labels": ["joy", "anger"], "sources": [SOURCE, LABELED, DEV]},
    "storage": {"uri": "file:///store"},
}


def document(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "selfemo.dev/v1alpha1",
        "kind": "EmotionEvolution",
        "metadata": {"name": "demo"},
        "spec": {**SPEC, **spec},
    }


def resolved(**spec: Any) -> EvolutionSpec:
    return EmotionEvolution.model_validate(document(**spec)).spec


def digest(name: str) -> str:
    """Return the digest of all values that a recipe gives, base values included."""
    values = {p: v for p, v in leaves(resolved(recipe=name).to_json()).items() if in_recipe(p)}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_never_changes_under_its_name(name: str) -> None:
    """If this fails, give the changed recipe a new version."""
    assert digest(name) == json.loads(DIGESTS.read_text())[name]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_valid_and_gives_only_what_it_may(name: str) -> None:
    assert check(document(recipe=name)) == []
    assert [path for path in leaves(recipe_values(name)) if not in_recipe(path)] == []
    assert changed_settings(resolved(recipe=name)) == {}


@pytest.mark.parametrize("name", RECIPES)
def test_each_value_of_a_recipe_has_its_reason(name: str) -> None:
    """A line of values has a comment, or is in the group of one that has."""
    assert recipe_text(name).startswith("# ")
    assert name in recipe_reference.render()


def test_every_setting_without_a_field_is_in_the_reference() -> None:
    page = recipe_reference.render()
    settings = [path for path in leaves(resolved().to_json()) if is_override_only(path)]
    assert "storage.maxAttempts" in settings
    assert [path for path in settings if f"| `{path}` ◦ |" not in page] == []


def test_the_order_of_values() -> None:
    assert DEFAULT_RECIPE == RECIPES[0] == "small-v2"
    recipe = recipe_values("small-v2")
    assert resolved().training.epochs == recipe["training"]["epochs"]
    assert resolved().training.clip.low == 0.2  # the base value
    assert resolved(training={"imitation": 3.0}).training.imitation == 3.0
    changed = resolved(training={"imitation": 3.0}, overrides={"training": {"epochs": 2}})
    assert (changed.training.imitation, changed.training.epochs) == (3.0, 2)
    assert changed.training.optimizer == resolved().training.optimizer
    assert changed_settings(changed) == {"training.epochs": 2, "training.imitation": 3.0}


def test_a_list_is_replaced_as_a_whole() -> None:
    views = [{"past": 3}]
    changed = resolved(overrides={"reward": {"judge": {"views": views}}})
    assert [view.past for view in changed.reward.judge.views] == [3]
    assert resolved(selfPlay={"roles": ["Responder"]}).self_play.roles == ["Responder"]


def test_a_null_of_overrides_stands_for_the_base_value() -> None:
    assert resolved().training.max_steps is not None
    assert resolved(overrides={"training": {"maxSteps": None}}).training.max_steps is None


def test_arguments_of_another_engine_are_left_out() -> None:
    assert resolved().self_play.engine_args
    assert resolved(selfPlay={"engine": "VLLM"}).self_play.engine_args == {}
    more = resolved(selfPlay={"engineArgs": {"seed": 1}}).self_play.engine_args
    assert more == {**resolved().self_play.engine_args, "seed": 1}


@pytest.mark.parametrize(
    ("ablation", "path", "value"),
    [
        (Ablation.RANDOM_REWARDS, "reward.signal", "Random"),
        (Ablation.PLAIN_IOU, "reward.smoothing", 0.0),
        (Ablation.UNWEIGHTED_GROUPS, "reward.groupWeight", "None"),
        (Ablation.SELF_GRADED, "reward.judge.weight", 0.0),
    ],
)
def test_an_ablation_wins(ablation: Ablation, path: str, value: object) -> None:
    judge = {"judge": {"weight": 0.7}}
    spec = resolved(ablation=ablation.value, reward=judge, overrides={"reward": {"smoothing": 0.2}})
    assert leaves(spec.to_json())[path] == value
    assert path in changed_settings(spec)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("ablation", Ablation)
def test_an_ablation_of_any_recipe_changes_its_own_settings_alone(
    name: str, ablation: Ablation
) -> None:
    assert check(document(recipe=name, ablation=ablation.value)) == []
    plain = leaves(resolved(recipe=name).to_json())
    without = leaves(resolved(recipe=name, ablation=ablation.value).to_json())
    changed = {path for path in {*plain, *without} if plain.get(path) != without.get(path)}
    own = {
        Ablation.NONE: set(),
        Ablation.RANDOM_REWARDS: {"reward.signal"},
        Ablation.PLAIN_IOU: {"reward.smoothing"},
        Ablation.UNWEIGHTED_GROUPS: {"reward.groupWeight"},
        Ablation.SELF_GRADED: {"reward.judge.model", "reward.judge.weight"},
    }
    assert changed - {"ablation"} <= own[ablation]
    assert (changed == set()) == (ablation is Ablation.NONE)


def test_what_overrides_must_not_have() -> None:
    for overrides, message in (
        ({"training": {"imitation": 1.0}}, "has a dedicated field"),
        ({"training": {"epoch": 1}}, "unknown field"),
        ({"storage": {"uri": "file:///other"}}, "has a dedicated field"),
    ):
        with pytest.raises(ValueError, match=message):
            resolve({**SPEC, "overrides": overrides})
    with pytest.raises(ValueError, match="there is no recipe `other-v1`"):
        resolve({**SPEC, "recipe": "other-v1"})


@pytest.mark.parametrize("preset", Preset)
def test_a_preset_gives_labels_and_files(preset: Preset) -> None:
    dataset = {"preset": preset.value, "uri": "data://folder/"}
    spec = resolved(dataset=dataset)
    published = PUBLISHED[preset]
    assert tuple(spec.dataset.labels) == published.labels
    assert [s.name for s in spec.dataset.evaluation] == ["dev", "test"]
    (labeled,) = spec.dataset.labeled
    (train,) = (s for s in spec.dataset.sources if s.use is Use.SELF_PLAY)
    assert labeled.uri == train.uri == f"data://folder/{published.files['train']}"
    assert (labeled.offset, labeled.limit, labeled.sample) == (0, *[published.labeled] * 2)
    assert (train.offset, train.limit) == (published.labeled, None)
    assert all(source.format is published.format for source in spec.dataset.sources)
    own = resolved(dataset={**dataset, "sources": [SOURCE, LABELED, DEV]})
    assert [s.name for s in own.dataset.sources] == ["demo", "labeled", "dev"]


@given(st.integers(0, 9), st.integers(1, 9), st.none() | st.integers(20, 30))
def test_labeled_dialogues_are_the_first_of_the_first_source(
    offset: int, count: int, limit: int | None
) -> None:
    source = {**SOURCE, "offset": offset, **({"limit": limit} if limit else {})}
    dataset = {**SPEC["dataset"], "sources": [source, DEV], "labeledDialogues": count}
    rest, labeled, dev = resolved(dataset=dataset).dataset.sources
    assert (labeled.use, labeled.name, labeled.sample) == (Use.LABELED, "demo-labeled", count)
    assert labeled.offset == offset
    assert labeled.offset + count == rest.offset
    if limit:
        assert rest.offset + (rest.limit or 0) == offset + limit
    assert dev.name == "dev"


@pytest.mark.parametrize("name", RECIPES)
def test_a_dump_is_resolved_once(name: str) -> None:
    """The local runner stores an evolution and reads it again."""
    dataset = {"labels": ["joy", "anger"], "sources": [SOURCE, DEV], "labeledDialogues": 5}
    overrides = {"training": {"maxSteps": None}}
    made = EmotionEvolution.model_validate(
        document(recipe=name, dataset=dataset, overrides=overrides)
    )
    again = EmotionEvolution.model_validate_json(made.model_dump_json(by_alias=True))
    assert again == made
    assert made.written["dataset"] == dataset


@given(documents())
@settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
def test_a_resolved_spec_resolves_to_itself(document: dict[str, Any]) -> None:
    stored, problems = examine(document)
    if problems:
        return
    spec = EmotionEvolution.model_validate(stored).spec
    assert EvolutionSpec.model_validate(resolve(spec.to_json())) == spec


def test_a_setting_is_written_where_it_has_a_field() -> None:
    assert all(written_path(path) == f"overrides.{path}" for path in override_only_paths())
    spec = resolved(recipe="paper-v1").to_json()
    before = copy.deepcopy(spec)
    written = with_overrides(spec)
    assert spec == before
    assert [path for path in leaves(written["overrides"]) if not is_override_only(path)] == []
    again = resolve({**written, "recipe": "paper-v1"})
    assert EvolutionSpec.model_validate(again).training == resolved(recipe="paper-v1").training


def test_the_readme_shows_a_resource_of_at_most_ten_lines(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```yaml\n(apiVersion.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        assert len([line for line in block.splitlines() if line.strip()]) <= 10


def test_the_files_of_iemocap_have_the_names_that_biosercs_repository_gives_them() -> None:
    names = ["iemocap.train.json", "iemocap.valid.json", "iemocap.test.json"]
    assert list(PUBLISHED[Preset.IEMOCAP].files.values()) == names
