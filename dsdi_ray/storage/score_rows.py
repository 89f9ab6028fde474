"""Rows of a score store: schemas, keys and how frames are laid out."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

WHOLE_FILE = "all"
NEW_OUTCOME_COLUMNS = ("seconds_covered", "is_transient")  # older stores lack them: null

OUTCOME_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("uri", pa.string()),
        ("content_id", pa.string()),  # null where the file could not be read at all
        ("span", pa.string()),
        ("decode_id", pa.string()),
        # Those that this attempt scored; of a failure those to blame: none where no frame decodes.
        ("member_ids", pa.list_(pa.string())),
        ("status", pa.string()),
        ("error", pa.string()),  # why it failed, or what a partial clip lacks
        ("note", pa.string()),  # why the second decoder was used, and the like
        ("decoder", pa.string()),
        ("frames_expected", pa.int32()),
        ("frames_scored", pa.int32()),
        ("attempts", pa.int32()),
        ("seconds", pa.float64()),  # of decoding, wall clock
        ("finished_at", pa.timestamp("us", tz="UTC")),
        ("seconds_covered", pa.float64()),  # of footage: frames_scored / fps
        ("is_transient", pa.bool_()),  # for a reason outside the clip: the next job retries
    ]
)


def logits_schema(num_classes: int) -> pa.Schema:
    """Schema of a logits file; float32, since half precision would turn noise of 1e-6 into 1e-3."""
    return pa.schema(
        [
            ("content_id", pa.string()),
            ("span", pa.string()),
            ("frame_index", pa.int32()),  # k: the picture on screen at k / fps
            ("time_seconds", pa.float64()),  # k / fps, from the clip's start
            ("logits", pa.list_(pa.float32(), num_classes)),
        ]
    )


def span_key(start_seconds: float | None, end_seconds: float | None) -> str:
    """The part of a file that a clip is, as a stable key: ``all``, ``12.5-15``, ``12.5-end``.

    Microseconds are told apart however long the file is.
    """
    if start_seconds is None and end_seconds is None:
        return WHOLE_FILE
    end = "end" if end_seconds is None else _plain(end_seconds)
    return f"{_plain(start_seconds or 0.0)}-{end}"


def _plain(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


def content_keys(rows: pa.Table) -> pa.ChunkedArray:
    """(content_id, span) of each row as one string; null where the content is."""
    return pc.binary_join_element_wise(rows["content_id"], rows["span"], "\n")


def frame_rows(
    *,
    content_ids: Sequence[str],
    spans: Sequence[str],
    frame_indices: Sequence[NDArray[np.int32]],
    times_seconds: Sequence[NDArray[np.float64]],
    logits: Sequence[NDArray[np.float32]],
) -> pa.Table:
    """Lay out chunks of frames as rows of a logits file.

    Args:
        content_ids: Content per chunk.
        spans: Span per chunk.
        frame_indices: Per chunk, ``[T]``.
        times_seconds: Per chunk, ``[T]``.
        logits: Per chunk, ``[T, C]``.
    """
    lengths = [len(indices) for indices in frame_indices]
    flat = np.concatenate(logits).astype(np.float32, copy=False)
    schema = logits_schema(flat.shape[1])
    return pa.table(
        [
            pa.array(np.repeat(np.array(content_ids, dtype=object), lengths), pa.string()),
            pa.array(np.repeat(np.array(spans, dtype=object), lengths), pa.string()),
            pa.array(np.concatenate(frame_indices), pa.int32()),
            pa.array(np.concatenate(times_seconds), pa.float64()),
            pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1]),
        ],
        schema=schema,
    )
