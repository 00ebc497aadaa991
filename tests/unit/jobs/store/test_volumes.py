from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfemo_jobs.errors import BadInput
from selfemo_jobs.store.volumes import data_volumes, local_path, resolve_data_uri

NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)


@pytest.mark.parametrize(
    ("uri", "environment", "path"),
    [
        ("data://meld/dev.csv", {}, "/data/meld/dev.csv"),
        ("data://meld", {}, "/data/meld"),
        ("data://meld/a//b.csv", {"SELFEMO_DATA_ROOT": "/mnt"}, "/mnt/meld/a/b.csv"),
        ("data://meld/a.csv", {"SELFEMO_DATA": "meld=/sets/meld"}, "/sets/meld/a.csv"),
        ("data://b/a.csv", {"SELFEMO_DATA": "meld=/m:b=/n:"}, "/n/a.csv"),
        ("data://c/a.csv", {"SELFEMO_DATA": "meld=/m", "SELFEMO_DATA_ROOT": "/r"}, "/r/c/a.csv"),
        ("data://d/Mein%20Ordner/%E5%AF%B9%E8%AF%9D.csv", {}, "/data/d/Mein Ordner/对话.csv"),
        ("data://d/a%2Fb%25.csv", {"SELFEMO_DATA": "d=/Meine Daten"}, "/Meine Daten/a/b%.csv"),
        ("data://d/100%.csv", {}, "/data/d/100%.csv"),
    ],
)
def test_volume_comes_from_the_mapping_then_from_the_root(
    uri: str, environment: dict[str, str], path: str
) -> None:
    assert resolve_data_uri(uri, environment) == Path(path)


@given(st.dictionaries(NAMES, NAMES.map(lambda n: Path("/sets") / n), max_size=4))
def test_mapping_reads_back(volumes: dict[str, Path]) -> None:
    assert data_volumes(":".join(f"{n}={p}" for n, p in volumes.items())) == volumes


@pytest.mark.parametrize(
    "uri",
    [
        "data:///a.csv",
        "data://meld/../x",
        "data://meld/%2e%2E/x",
        "data://meld/a%2F..%2F..%2Fx",
        "data://../x",
        "s3://a/b",
    ],
)
def test_uri_without_a_volume_or_out_of_it_is_refused(uri: str) -> None:
    with pytest.raises(BadInput, match="must"):
        resolve_data_uri(uri, {})


@given(
    st.lists(
        st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"])), min_size=1
    )
)
def test_path_of_any_characters_reads_back(names: list[str]) -> None:
    path = Path("/v", *(name for name in names if name not in {".", ".."}))
    uri = "data://v" + "/".join(["", *(quote(part, safe="") for part in path.parts[2:])])
    assert resolve_data_uri(uri, {"SELFEMO_DATA": "v=/v"}) == path


@pytest.mark.parametrize("text", ["meld", "meld=relative", "=/folder"])
def test_broken_mapping_is_named(text: str) -> None:
    with pytest.raises(BadInput, match="SELFEMO_DATA"):
        resolve_data_uri("data://meld/a.csv", {"SELFEMO_DATA": text})


def test_file_uri_is_decoded_and_must_be_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    assert local_path("file:///a%20b/c") == Path("/a b/c")
    assert local_path("file://localhost/a") == Path("/a")
    monkeypatch.setenv("SELFEMO_DATA", "v=/w")
    assert local_path("data://v/x") == Path("/w/x")
    for uri in ("file://a/b", "s3://a/b"):
        with pytest.raises(BadInput):
            local_path(uri)
