"""The comparison of the served CRD with the operator's schema."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfemo_api.schema.crd import build_crd
from selfemo_operator.controller.crd_check import (
    CrdMismatch,
    check_crd,
    missing_fields,
    served_schema,
)
from selfemo_operator.controller.kube.client import ApiError

Json = dict[str, Any]
SCHEMA: Json = build_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def document(schema: Json) -> Json:
    kind = {"group": "selfemo.dev", "kind": "EmotionEvolution", "version": "v1alpha1"}
    schemas = {
        "list": {"x-kubernetes-group-version-kind": [{**kind, "kind": "EmotionEvolutionList"}]},
        "ours": {**schema, "x-kubernetes-group-version-kind": [kind]},
    }
    return {"components": {"schemas": schemas}}


class Api:
    def __init__(self, response: Json | ApiError) -> None:
        self.response = response

    def get(self, path: str) -> Json:
        assert path == "/openapi/v3/apis/selfemo.dev/v1alpha1"
        if isinstance(self.response, ApiError):
            raise self.response
        return self.response


def check(response: Json | ApiError) -> None:
    check_crd(Api(response))  # type: ignore[arg-type]


def without(*path: str) -> Json:
    schema = copy.deepcopy(SCHEMA)
    place = schema
    for name in path[:-1]:
        place = place["properties"][name]
        place = place.get("items", place)
    del place["properties"][path[-1]]
    return schema


def test_the_crd_of_this_version_matches() -> None:
    check(document(SCHEMA))


def test_a_newer_crd_matches() -> None:
    schema = copy.deepcopy(SCHEMA)
    schema["properties"]["spec"]["properties"]["newer"] = {"type": "string"}
    check(document(schema))


@pytest.mark.parametrize(
    ("path", "named"),
    [
        (("status", "lastFailure"), "status.lastFailure"),
        (("spec", "selfPlay", "shards"), "spec.selfPlay.shards"),
        (("status", "history", "gpuSeconds"), "status.history[].gpuSeconds"),
    ],
)
def test_the_missing_fields_of_an_older_crd_are_named(path: tuple[str, ...], named: str) -> None:
    with pytest.raises(CrdMismatch, match="older than this operator") as error:
        check(document(without(*path)))
    assert f"`{named}`" in str(error.value)


def test_a_missing_crd_is_reported() -> None:
    with pytest.raises(CrdMismatch, match="apply the chart's CRD"):
        check(ApiError(404, "NotFound", ""))
    with pytest.raises(CrdMismatch, match="does not serve EmotionEvolution"):
        served_schema({"components": {"schemas": {}}})


def test_an_unreachable_api_server_is_not_a_mismatch() -> None:
    with pytest.raises(ApiError):
        check(ApiError(503, "ServiceUnavailable", "later"))


names = st.sampled_from("abc")
schemas = st.recursive(
    st.just({"type": "string"}),
    lambda inner: st.one_of(
        st.builds(lambda p: {"properties": p}, st.dictionaries(names, inner, max_size=3)),
        st.builds(lambda i: {"items": i}, inner),
    ),
    max_leaves=8,
)


@given(schemas)
def test_a_schema_lacks_no_field_of_itself(schema: Json) -> None:
    assert missing_fields(schema, schema) == []


@given(schemas)
def test_an_empty_schema_lacks_all_top_level_fields(schema: Json) -> None:
    assert missing_fields(schema, {}) == list(schema.get("properties", {}))
