"""Runs: clips ranked for each feature, as Parquet, and read from any of the formats.

The in-memory form is a table of :data:`~dsdi_ray.storage.run_table.RUN_SCHEMA`, sorted by
feature_id and rank. Parquet keeps scores, peaks and what the run was made of; the TREC text and
the TRECVID XML are for other tools, see :mod:`~dsdi_ray.storage.trec` and
:mod:`~dsdi_ray.storage.trecvid`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dsdi_ray.errors import DataError
from dsdi_ray.method.ranking import rank_clips
from dsdi_ray.storage.run_table import (
    RUN_SCHEMA,
    RankedList,
    check_run_table,
    feature_names,
    lists_of_table,
    table_of_lists,
)
from dsdi_ray.storage.trec import check_tag, read_trec_run, write_trec_run
from dsdi_ray.storage.trecvid import TrecvidRun, read_trecvid_run, write_trecvid_run
from dsdi_ray.taxonomy import Taxonomy

_METADATA_PREFIX = b"dsdi_ray."


def ranked_run(
    clip_ids: Sequence[str],
    scores: NDArray[np.floating],
    peaks: NDArray[np.floating] | None,
    *,
    features: Taxonomy,
    top: int | None = None,
) -> pa.Table:
    """Rank the clips of each feature (paper section 2.5).

    Args:
        clip_ids: Distinct names, N.
        scores: Confidence per class of the taxonomy, none-classes included, ``[N, C]``.
        peaks: Second at which each score peaked, ``[N, C]``, NaN where unknown.
        features: Taxonomy of the classes; only its features are ranked.
        top: Clips kept per feature, all where None.

    Returns:
        The run, a table of ``RUN_SCHEMA``.

    Raises:
        DataError: If a score is not finite, naming the clip.
        ValueError: If ids repeat or shapes differ.
    """
    if scores.shape != (len(clip_ids), len(features)):
        raise ValueError(
            f"scores must be [{len(clip_ids)}, {len(features)}], got shape {scores.shape}"
        )
    columns = list(features.feature_indices)
    if not np.isfinite(scores[:, columns]).all():
        row = int(np.argmin(np.isfinite(scores[:, columns]).all(axis=1)))
        raise DataError(f"clip {clip_ids[row]!r}: its scores must be finite, it cannot be ranked")
    orders = rank_clips(clip_ids, scores[:, columns], top)
    seconds = np.full(scores.shape, np.nan) if peaks is None else peaks
    lists = [
        RankedList(
            feature_id=feature.feature_id or 0,  # never 0: a feature has a number
            feature=feature.name,
            clip_ids=[clip_ids[row] for row in order.tolist()],
            scores=scores[order, column].astype(np.float64),
            peak_seconds=seconds[order, column].astype(np.float64),
        )
        for feature, column, order in zip(features.features, columns, orders, strict=True)
    ]
    return table_of_lists(lists)


def scores_of_run(run: pa.Table) -> dict[int, dict[str, float]]:
    """A run as feature_id -> clip_id -> score, for :func:`dsdi_ray.method.fusion.fuse_runs`."""
    return {
        one.feature_id: dict(zip(one.clip_ids, one.scores.tolist(), strict=True))
        for one in lists_of_table(run)
    }


def run_of_scores(
    scores: Mapping[int, Mapping[str, float]],
    *,
    taxonomy: Taxonomy | None = None,
    top: int | None = None,
) -> pa.Table:
    """Rank scores per feature, such as those of fused runs; peaks are unknown."""
    names = feature_names(taxonomy)
    lists = []
    for feature_id, by_clip in scores.items():
        clip_ids = list(by_clip)
        column = np.array([by_clip[c] for c in clip_ids], np.float64)
        (order,) = rank_clips(clip_ids, column.reshape(-1, 1), top)
        lists.append(
            RankedList(
                feature_id=feature_id,
                feature=names.get(feature_id),
                clip_ids=[clip_ids[row] for row in order.tolist()],
                scores=column[order],
                peak_seconds=np.full(len(order), np.nan),
            )
        )
    return table_of_lists(lists)


def write_run(run: pa.Table, path: Path, *, metadata: Mapping[str, str] | None = None) -> None:
    """Write a run as Parquet.

    Args:
        run: A table of ``RUN_SCHEMA``.
        path: File to write; its folder is made.
        metadata: What the run was made of, such as ensemble_id, pool and order.

    Raises:
        DataError: If the table breaks a rule of runs.
    """
    check_run_table(run, source=str(path))
    notes = {_METADATA_PREFIX + k.encode(): v.encode() for k, v in (metadata or {}).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(run.replace_schema_metadata({**(run.schema.metadata or {}), **notes}), path)


def run_metadata(run: pa.Table) -> dict[str, str]:
    """What a run that was read from Parquet says it was made of."""
    return {
        key.removeprefix(_METADATA_PREFIX).decode(): value.decode()
        for key, value in (run.schema.metadata or {}).items()
        if key.startswith(_METADATA_PREFIX)
    }


def write_run_files(
    run: pa.Table,
    out: Path,
    *,
    taxonomy: Taxonomy,
    tag: str = "dsdi",
    about: TrecvidRun | None = None,
    metadata: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write a run in all three formats into a folder.

    Args:
        run: A table of ``RUN_SCHEMA``.
        out: Folder; it is made.
        taxonomy: Whose features the XML lists, empty ones included.
        tag: The run's name in the TREC text; its description in the XML where that has none.
        about: What the XML says of the run.
        metadata: As in :func:`write_run`.

    Returns:
        run.parquet, run.trec and run.xml.

    Raises:
        DataError: If the run or a clip_id cannot be written in a format; those before it are. If the
            tag cannot, nothing is.
    """
    check_tag(tag)
    about = about or TrecvidRun()
    about = replace(about, description=about.description or tag)
    files = [out / name for name in ("run.parquet", "run.trec", "run.xml")]
    write_run(run, files[0], metadata=metadata)
    write_trec_run(run, files[1], tag=tag)
    write_trecvid_run(run, files[2], taxonomy=taxonomy, about=about)
    return files


def read_run(path: Path, *, taxonomy: Taxonomy | None = None) -> pa.Table:
    """Read a run of any format: .parquet, .trec, .txt or .run (TREC text), .xml (TRECVID).

    Args:
        path: File.
        taxonomy: Names the features of formats that only number them.

    Returns:
        A table of ``RUN_SCHEMA``; the order is the one that trec_eval sees.

    Raises:
        DataError: If the file is absent, of an unknown kind, or breaks a rule, with the line.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"run {path}: must end in {', '.join(_READERS)}, got {path.suffix!r}")
    if not path.is_file():
        raise DataError(f"run {path}: no such file")
    return reader(path, taxonomy)


def _read_parquet(path: Path, taxonomy: Taxonomy | None) -> pa.Table:  # noqa: ARG001, names are in it
    try:
        run = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"run {path}: not a Parquet file ({error})") from error
    missing = [name for name in RUN_SCHEMA.names if name not in run.column_names]
    if missing:
        has = ", ".join(run.column_names)
        raise DataError(f"run {path}: no column `{missing[0]}`, has {has}")
    schema = RUN_SCHEMA.with_metadata(run.schema.metadata)
    try:
        run = run.select(RUN_SCHEMA.names).cast(schema)
    except pa.ArrowInvalid as error:
        raise DataError(f"run {path}: columns must be {RUN_SCHEMA}: {error}") from error
    run = run.sort_by([("feature_id", "ascending"), ("rank", "ascending")])
    check_run_table(run, source=f"run {path}")
    return run


_READERS: Mapping[str, Callable[[Path, Taxonomy | None], pa.Table]] = {
    ".parquet": _read_parquet,
    ".trec": read_trec_run,
    ".txt": read_trec_run,
    ".run": read_trec_run,
    ".xml": read_trecvid_run,
}
