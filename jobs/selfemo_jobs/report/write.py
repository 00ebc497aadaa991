"""The report of a run that is in a storage, as the bytes of a file."""

from __future__ import annotations

from collections.abc import Sequence

from selfemo_jobs.errors import BadInput
from selfemo_jobs.report.answer_reader import read_answers
from selfemo_jobs.report.comparison import LoadedRun
from selfemo_jobs.report.gains import evaluated_models
from selfemo_jobs.report.page import render
from selfemo_jobs.report.report_builder import StoredTables, build_report
from selfemo_jobs.report.run_info import RunInfo
from selfemo_jobs.report.sample_reader import read_replies, read_samples
from selfemo_jobs.report.types import ReportData
from selfemo_jobs.runtime.run_reader import StageRecord, read_records
from selfemo_jobs.store import Store


def report_page(store: Store, run_uri: str, info: RunInfo) -> bytes:
    """Return the report of a run as one HTML document that loads no other file.

    Equal manifests, tables and run records give equal bytes.

    Parameters
    ----------
    store
        The store that contains the run.
    run_uri
        The URI of the run's folder, ``<storage>/<namespace>/<name>-<uid8>``.
    info
        What is known besides the manifests: of a resource
        (:func:`~selfemo_jobs.report.run_info.info_of_evolution`), or of the configuration of
        Publish (:func:`~selfemo_jobs.report.run_info.info_of_config`).

    Returns
    -------
    bytes
        The page in UTF-8.

    Raises
    ------
    BadInput
        If the folder has no finished stage, or one of its files is damaged.
    Unavailable
        If the storage does not respond.
    """
    return render(report_data(store, read_run(store, run_uri), info)).encode()


def read_run(store: Store, run_uri: str) -> list[StageRecord]:
    """Return the finished stages of a run in order.

    Parameters
    ----------
    store
        The store that contains the run.
    run_uri
        The URI of the run's folder.

    Raises
    ------
    BadInput
        If the folder has no finished stage, or a manifest cannot be read.
    """
    records = read_records(store, run_uri)
    if not records:
        raise BadInput(
            f"{run_uri} contains no finished stage: check the name of the run, or wait for its "
            "first stage"
        )
    return records


def report_data(store: Store, records: Sequence[StageRecord], info: RunInfo) -> ReportData:
    """Return the content of the report, with all that is read from the run's tables.

    Parameters
    ----------
    store
        The store that contains the run.
    records
        The finished stages of the run in order.
    info
        What is known besides the manifests.

    Raises
    ------
    BadInput
        If a table does not match its manifest.
    """
    tables = StoredTables(
        samples=read_samples(store, records),
        replies=read_replies(store, records),
        answers=read_answers(store, records),
    )
    return build_report(records, info, tables)


def load_run(store: Store, run_uri: str, info: RunInfo) -> LoadedRun:
    """Return what a comparison needs of a run.

    Parameters
    ----------
    store
        The store that contains the run.
    run_uri
        The URI of the run's folder.
    info
        What is known besides the manifests.

    Raises
    ------
    BadInput
        If the folder has no finished stage, or one of its files is damaged.
    Unavailable
        If the storage does not respond.
    """
    records = read_run(store, run_uri)
    answers = read_answers(store, records)
    return LoadedRun(
        info=info,
        records=records,
        data=build_report(records, info, StoredTables(answers=answers)),
        results=evaluated_models(records, answers),
    )
