"""The stored result of a stage: whether it answers, and how a new manifest takes its place."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from selfemo_api.contract import StageConfig
from selfemo_api.results import StageResult
from selfemo_jobs.errors import BadInput, DamagedFiles, Unavailable
from selfemo_jobs.runtime.fingerprint import differing_settings
from selfemo_jobs.runtime.manifest import (
    MANIFEST,
    Manifest,
    canonical_json,
    parse_manifest,
    read_manifest,
)
from selfemo_jobs.runtime.run_record import RUN_RECORD
from selfemo_jobs.runtime.whole_parts import are_whole
from selfemo_jobs.store import ObjectNotFound, Store, join
from selfemo_jobs.store.hashing import sha256

log = logging.getLogger(__name__)

#: How often a manifest is compared again, because another attempt wrote one since.
_TRIES = 10


class StoredResult:
    """The manifest of a stage in the storage.

    Parameters
    ----------
    store
        The run's store.
    config
        The stage's configuration.
    fingerprint
        The settings that the result follows from.
    work
        The stage's scratch folder.
    """

    def __init__(
        self, store: Store, config: StageConfig, fingerprint: dict[str, Any], work: Path
    ) -> None:
        self._store = store
        self._config = config
        self._fingerprint = fingerprint
        self._work = work
        self._uri = join(config.output, MANIFEST)
        self._replaced: bytes | None = None
        """The bytes of a stored manifest that is made again."""

    def parents(self) -> dict[str, str]:
        """Return the SHA-256 of the present manifest of each parent. Raises DamagedFiles."""
        parents = sorted(self._config.parents.items())
        return {slug: read_manifest(self._store, uri)[1] for slug, uri in parents}

    def answer(self, *, raced: bool = False) -> StageResult | None:
        """Return the result in the stored manifest, or None if the stage has to be done.

        Parameters
        ----------
        raced
            Whether another attempt wrote the manifest since this one began. Its settings are then
            not older than those of this attempt.

        Raises
        ------
        BadInput
            If the manifest was made with other settings, and the stage does not repair its result.
        DamagedFiles
            If the stage repairs its result, and a parent is damaged.
        Unavailable
            If the storage cannot be reached.
        """
        try:
            data = self._store.get(self._uri)
        except ObjectNotFound:
            return None
        reason = self._reason_to_replace(data, repair=self._config.repair and not raced)
        if reason is None:
            log.info("found the manifest: nothing to do")
            manifest = parse_manifest(data, self._uri)
            return result_from(self._uri, manifest, sha256(data), reused=True)
        log.warning("%s %s: the stage is done again", self._uri, reason)
        self._replaced = data
        return None

    def publish(
        self, manifest: Manifest, record: dict[str, Any], seconds: float, *, replaces: bool
    ) -> StageResult:
        """Write a manifest once, and return the result that is stored now.

        If another attempt was faster, its result is returned, and this one is not used.

        Parameters
        ----------
        manifest
            The manifest, whose parts are stored.
        record
            The record of the run: times and machine.
        seconds
            How long the stage took.
        replaces
            Whether the manifest replaces any stored one.

        Raises
        ------
        BadInput
            If another attempt wrote a manifest with other settings.
        Unavailable
            If the storage cannot be reached, or an earlier stage ran again since this one began.
        """
        data = manifest.encode()
        # It describes the attempt that wrote the manifest. Nothing follows from it.
        if replaces or self._replaced is not None or not self._store.exists(self._uri):
            self._store.put(join(self._config.output, RUN_RECORD), canonical_json(record))
        for _ in range(_TRIES):
            written = self._store.replace(self._uri, data, self._replaced)
            if not written and replaces:
                self._store.put(self._uri, data)
                written = True
            if written:
                return result_from(self._uri, manifest, sha256(data), seconds=seconds)
            if not replaces and self.parents() != manifest.parents:
                raise Unavailable(
                    f"{self._uri}: an earlier stage ran again while this one ran; run the same "
                    "command again"
                )
            self._replaced = None
            if (result := self.answer(raced=True)) is not None:
                return result
        raise Unavailable(
            f"{self._uri}: other attempts replaced it {_TRIES} times; run the same command again"
        )

    def _reason_to_replace(self, data: bytes, *, repair: bool) -> str | None:
        """Return why a stored manifest does not answer, or None if it does. Raises BadInput."""
        try:
            manifest = parse_manifest(data, self._uri)
        except DamagedFiles:
            return "is damaged"
        if manifest.config_sha256 != sha256(canonical_json(self._fingerprint)):
            settings = differing_settings(manifest.config, self._fingerprint)
            names = ", ".join(f"`{name}`" for name in settings)
            if repair:
                return f"was made with other settings ({names})"
            raise BadInput(
                f"{self._uri} was made with other settings ({names}): use another `storage.uri` or "
                f"name, or delete the folder {self._config.output}"
            )
        if self._parents_changed(manifest):
            return "was made from an earlier result of another stage"
        if repair and not are_whole(self._store, self._config.output, manifest.parts, self._work):
            return "lists a part that is missing or damaged"
        return None

    def _parents_changed(self, manifest: Manifest) -> bool:
        """Return whether a parent has another manifest now.

        A stage that does not repair its result answers even where a parent is gone: nothing else
        reads that parent any more.
        """
        try:
            return self.parents() != manifest.parents
        except DamagedFiles:
            if self._config.repair:
                raise
            return False


def result_from(
    uri: str, manifest: Manifest, digest: str, *, seconds: float = 0.0, reused: bool = False
) -> StageResult:
    """Return the result that a manifest describes.

    Parameters
    ----------
    uri
        The manifest's URI.
    manifest
        The manifest.
    digest
        The SHA-256 of its bytes.
    seconds
        How long the stage took.
    reused
        Whether the manifest was already there.
    """
    return StageResult(
        stage=manifest.stage,
        generation=manifest.generation,
        manifest=uri,
        manifest_sha256=digest,
        rows=manifest.rows,
        metrics=manifest.metrics,
        scores=manifest.scores,
        expression=manifest.expression,
        model_uri=join(uri.rsplit("/", 1)[0], manifest.model) if manifest.model else None,
        label_shares=_label_shares(manifest),
        seconds=round(seconds, 3),
        reused=reused,
    )


def _label_shares(manifest: Manifest) -> list[float]:
    """Return the shares of the labels in their order: the names need not be in the message."""
    prior = manifest.label_prior
    return [prior[label] for label in manifest.config["dataset.labels"]] if prior else []
