"""The parts of the spec that name objects of Kubernetes and change pods."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from selfemo_api.api_model import ApiModel
from selfemo_api.schema.crd import structural
from selfemo_api.spec import (
    EvolutionSpec,
    PodTemplate,
    PodTemplateEntry,
    Queue,
    ResourcesSpec,
    SecretReference,
)
from selfemo_api.stages import Stage

#: The form of object names in Kubernetes (IsDNS1123Subdomain).
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
#: Fields that name an object, with the largest length of the name.
NAMES: list[tuple[type[ApiModel], str, int]] = [
    (SecretReference, "name", 253),
    (Queue, "name", 63),
    (Queue, "priorityClass", 63),
    (PodTemplate, "serviceAccountName", 253),
    (PodTemplate, "priorityClassName", 253),
    (PodTemplate, "runtimeClassName", 253),
]


def is_accepted(model: type[ApiModel], field: str, value: Any) -> bool:
    """Return whether a type accepts a value of one field; the others are valid."""
    base = {"name": "a"} if model is Queue else {}
    try:
        model.model_validate({**base, field: value})
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(("model", "field", "longest"), NAMES)
def test_names_are_those_of_kubernetes(model: type[ApiModel], field: str, longest: int) -> None:
    valid = ["a", "7", "minio.creds", "s3-keys", "a.b-c.0", "x" * longest, f"{'y' * 40}.team"]
    invalid = ["", ".", "a.", ".a", "a..b", "-a", "a-", "a.-b", "Keys", "a_b", "a b", "é", "a/b"]
    assert [n for n in valid if not is_accepted(model, field, n)] == []
    assert [n for n in invalid if is_accepted(model, field, n)] == []
    assert not is_accepted(model, field, "x" * (longest + 1))


@given(st.text("ab0.-_A", min_size=1, max_size=12))
def test_a_secret_has_any_name_that_kubernetes_gives_it(name: str) -> None:
    assert is_accepted(SecretReference, "name", name) == bool(SUBDOMAIN.fullmatch(name))


@pytest.mark.parametrize(("model", "field", "longest"), NAMES)
def test_the_crd_has_the_same_names(model: type[ApiModel], field: str, longest: int) -> None:
    schema = structural(model)["properties"][field]
    assert re.compile(schema["pattern"]).pattern == f"^{SUBDOMAIN.pattern}$"
    assert (schema["minLength"], schema["maxLength"]) == (1, longest)


@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        ("nvidia.com/gpu", True),
        ("nvidia.com/mig-1g.10gb", True),
        ("nvidia.com/gpu.shared", True),
        ("amd.com/gpu", True),
        ("habana.ai/gaudi", True),
        ("", True),
        ("gpu", False),
        ("nvidia.com/", False),
        ("/gpu", False),
        ("a b/gpu", False),
    ],
)
def test_an_accelerator_is_an_extended_resource(name: str, accepted: bool) -> None:
    assert is_accepted(ResourcesSpec, "accelerator", name) is accepted


def test_an_entry_names_stages_or_is_for_all() -> None:
    template = {"image": "i"}
    for stages in ([s.value for s in Stage], ["Train"], None):
        entry = PodTemplateEntry.model_validate({"stages": stages, "template": template})
        assert entry.stages == (None if stages is None else [Stage(s) for s in stages])
    for invalid in ([], ["train"], ["Purge"], "Train"):
        with pytest.raises(ValidationError, match="stages"):
            PodTemplateEntry.model_validate({"stages": invalid, "template": template})
    with pytest.raises(ValidationError, match="template"):
        PodTemplateEntry.model_validate({"stages": ["Train"]})


def test_the_crd_names_each_stage() -> None:
    entry = structural(EvolutionSpec)["properties"]["podTemplate"]["items"]
    assert entry["required"] == ["template"]
    assert entry["properties"]["stages"]["items"]["enum"] == [stage.value for stage in Stage]


@pytest.mark.parametrize("field", ["hostNetwork", "hostPID", "containers", "shared"])
def test_a_pod_template_has_no_other_field(field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        PodTemplate.model_validate({field: True})
