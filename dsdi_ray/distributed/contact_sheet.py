"""Show the best clips of a run with the frame at which each one's score peaked."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from dsdi_ray.errors import FetchError
from dsdi_ray.report.figures import ContactClip, ContactRow, contact_sheet
from dsdi_ray.storage.local_copies import LocalCopies
from dsdi_ray.vision.decode import ClipSource, DecodeSettings, FrameChunk
from dsdi_ray.vision.decode_process import DecodeProcess

_PICTURE_PX = 320


def write_contact_sheet(
    run: pa.Table,
    manifest: pa.Table,
    out: Path,
    *,
    settings: DecodeSettings,
    qrels: Mapping[str, Mapping[str, int]] | None = None,
    average_precisions: Mapping[int, float] | None = None,
    num_features: int = 6,
    num_clips: int = 6,
    title: str | None = None,
) -> None:
    """Draw the best clips of the features with the highest average precision, or best score.

    Args:
        run: See :mod:`dsdi_ray.storage.runs`.
        manifest: Where the clips are.
        out: PNG to write.
        settings: How the clips were sampled.
        qrels: Relevance per topic and clip, to mark right and wrong.
        average_precisions: Per feature_id; chooses the features where given.
        num_features: Rows.
        num_clips: Clips per row.
        title: Line above the rows.
    """
    by_feature = [
        list(rows)
        for _, rows in groupby(
            run.filter(pc.field("rank") <= num_clips).to_pylist(), lambda row: row["feature_id"]
        )
    ]
    merits = average_precisions or {rows[0]["feature_id"]: rows[0]["score"] for rows in by_feature}
    chosen = [rows for rows in by_feature if rows[0]["feature_id"] in merits]
    chosen.sort(key=lambda rows: (-merits[rows[0]["feature_id"]], rows[0]["feature_id"]))
    wanted = {row["clip_id"] for rows in chosen[:num_features] for row in rows}
    clips = {
        clip["clip_id"]: clip
        for clip in manifest.filter(pc.field("clip_id").isin(list(wanted))).to_pylist()
    }
    copies = LocalCopies()
    with DecodeProcess(settings) as process:
        rows = [
            ContactRow(
                feature=rows[0]["feature"],
                ap=(average_precisions or {}).get(rows[0]["feature_id"]),
                clips=list(_clips(rows, clips, copies, process, settings, qrels)),
            )
            for rows in chosen[:num_features]
        ]
    contact_sheet(rows, out, title=title)


def _clips(
    rows: Sequence[Mapping[str, Any]],
    clips: Mapping[str, Mapping[str, Any]],
    copies: LocalCopies,
    process: DecodeProcess,
    settings: DecodeSettings,
    qrels: Mapping[str, Mapping[str, int]] | None,
) -> Iterator[ContactClip]:
    for row in rows:
        judged = (qrels or {}).get(str(row["feature_id"]), {}).get(row["clip_id"])
        yield ContactClip(
            picture=_picture(
                clips.get(row["clip_id"]), row["peak_seconds"], copies, process, settings
            ),
            rank=row["rank"],
            clip_id=row["clip_id"],
            score=row["score"],
            peak_seconds=row["peak_seconds"],
            is_relevant=None if judged is None else judged > 0,
        )


def _picture(
    clip: Mapping[str, Any] | None,
    peak_seconds: float | None,
    copies: LocalCopies,
    process: DecodeProcess,
    settings: DecodeSettings,
) -> NDArray[np.uint8] | None:
    """Decode the one frame on screen at a clip's peak, in its own proportions."""
    if clip is None or peak_seconds is None:
        return None
    try:
        path = copies.get(clip["uri"], content_id=clip["content_id"])
    except FetchError:
        return None
    is_video = clip["media"] == "video"
    start = (clip["start_seconds"] or 0.0) + peak_seconds
    source = ClipSource(
        uri=str(path),
        media=clip["media"],
        start_seconds=start if is_video else None,
        end_seconds=start + 0.5 / settings.fps if is_video else None,
    )
    for part in process.decode(source, [_PICTURE_PX]):
        if isinstance(part, FrameChunk):
            picture = Image.fromarray(part.pixels[_PICTURE_PX][0])
            width, height = clip["width"] or _PICTURE_PX, clip["height"] or _PICTURE_PX
            size = (_PICTURE_PX, max(1, round(_PICTURE_PX * height / width)))
            return np.asarray(picture.resize(size), dtype=np.uint8)
    return None
