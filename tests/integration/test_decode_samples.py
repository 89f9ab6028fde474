"""All real sample files: what became of each, and which pictures came out.

The truth is a plain decode with PyAV, written here on its own.
"""

import contextlib
import json
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from dsdi_ray.vision.clip_reader import ClipReader
from dsdi_ray.vision.decode import ClipSource, DecodeOutcome, DecodeSettings, FrameChunk
from dsdi_ray.vision.decode_process import DecodeProcess
from dsdi_ray.vision.pictures import resize_square

SHARED_DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
SIDE_PX = 64


def listed_files() -> Iterator[tuple[str, int]]:
    """Path and number of frames that PyAV decodes, as the list beside the files says."""
    if not SHARED_DATA.is_dir():
        return
    for line in (SHARED_DATA / "MANIFEST.md").read_text().splitlines():
        cells = [c.strip() for c in line.split("|")]
        if len(cells) > 10 and cells[1] in {"clips", "torture"}:
            yield f"{cells[1]}/{cells[2]}", int(cells[9]) if cells[9].isdigit() else 0


FILES = list(listed_files())
pytestmark = pytest.mark.skipif(not FILES, reason="no real sample data beside the checkout")


@pytest.fixture(scope="module")
def process() -> Iterator[DecodeProcess]:
    with DecodeProcess(DecodeSettings()) as process:
        yield process


def decode(process, name, **part) -> tuple[list[FrameChunk], DecodeOutcome]:
    source = ClipSource(uri=str(SHARED_DATA / name), **part)
    *chunks, outcome = process.decode(source, [SIDE_PX])
    return chunks, outcome


def plain_decode(name: str) -> tuple[list[tuple[int, int, np.ndarray]], Fraction]:
    """(pts, duration, picture) of all that decodes, and the time base."""
    pictures = []
    with av.open(str(SHARED_DATA / name), metadata_errors="replace") as container:
        stream = container.streams.best("video")
        stream.thread_type = "NONE"
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue
            for f in frames:
                small = f.reformat(SIDE_PX, SIDE_PX, format="rgb24", interpolation="BICUBIC")
                picture = np.rot90(small.to_ndarray(), round(f.rotation / 90) % 4)
                pictures.append((f.pts, f.duration or 0, picture))
        return sorted(pictures, key=lambda p: p[0]), stream.time_base


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.mean((a.astype(float) - b) ** 2), 1e-9)))


def assert_same_as_full_decode(name: str, chunks: list[FrameChunk], outcome: DecodeOutcome) -> None:
    source = ClipSource(uri=str(SHARED_DATA / name))
    reader = ClipReader(source, [SIDE_PX], DecodeSettings(), is_careful=True)
    *others, full = (part for part in reader.read() if not isinstance(part, float | None))
    for field in ("status", "error", "frames_expected", "frames_scored"):
        assert getattr(outcome, field) == getattr(full, field)
    for ours, theirs in zip(chunks, others, strict=True):
        np.testing.assert_array_equal(ours.frame_indices, theirs.frame_indices)
        np.testing.assert_array_equal(ours.pixels[SIDE_PX], theirs.pixels[SIDE_PX])


def first_picture(name: str) -> np.ndarray:
    """The first picture shown, upright RGB in its own size, by a plain decode."""
    with av.open(str(SHARED_DATA / name), metadata_errors="replace") as container:
        stream = container.streams.best("video")
        stream.thread_type, frames = "NONE", []
        for packet in container.demux(stream):
            with contextlib.suppress(av.FFmpegError):
                frames += packet.decode()
            if len(frames) > 8:
                break
        frame = min(frames, key=lambda f: f.pts)
        picture = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4)
        return np.ascontiguousarray(picture)


def coarse(picture: np.ndarray) -> np.ndarray:
    """Means of squares of 4 x 4."""
    side = len(picture) // 4
    return picture.astype(float).reshape(side, 4, side, 4, 3).mean(axis=(1, 3))


def test_the_list_is_complete():
    assert len(FILES) == 107


@pytest.mark.parametrize(("name", "num_pictures"), FILES, ids=[n for n, _ in FILES])
def test_every_file_ends_as_the_outcome_it_deserves(process, name, num_pictures):
    chunks, outcome = decode(process, name)
    assert outcome.frames_scored == sum(len(c.frame_indices) for c in chunks)
    if num_pictures == 0:
        assert (outcome.status, outcome.frames_scored) == ("failed", 0)
        assert re.match(
            r"(encrypted: )?(the file is empty|cannot be opened: |no video stream \(|"
            r"no picture in the video stream|no frame decodes)",
            outcome.error,
        )
        return
    is_damaged = any(word in name for word in ("corrupted", "zeroed", "trunc50.mkv"))
    assert outcome.status == ("partial" if is_damaged else "ok")
    pictures, time_base = plain_decode(name)
    shown_at = [float((pts - pictures[0][0]) * time_base) for pts, _, _ in pictures]
    end = shown_at[-1] + float(pictures[-1][1] * time_base)
    expected, before = {}, None
    for k in range(int(end * 10) + 1):
        on_screen = int(np.searchsorted(shown_at, k / 10 + 1e-6, side="right")) - 1
        if on_screen != before and (k == 0 or k / 10 < end - 1e-6):
            expected[k] = before = on_screen
    got = {
        int(k): picture
        for c in chunks
        for k, picture in zip(c.frame_indices, c.pixels[SIDE_PX], strict=True)
    }
    missing = set(expected) - set(got)
    assert set(got) <= set(expected)
    assert len(missing) <= (1 if outcome.status == "partial" else 0)
    for k, picture in got.items():
        assert psnr(picture, pictures[expected[k]][2]) > 27, f"frame {k} is another picture"
    if "skipped undecoded" in (outcome.note or ""):
        assert_same_as_full_decode(name, chunks, outcome)


@pytest.mark.parametrize("name", [name for name, num_pictures in FILES if num_pictures])
def test_pictures_look_as_another_scaler_makes_them_of_whole_rgb_pictures(process, name):
    """Brightness to 35 dB; colours as blocks, for scaling YUV leaves them half as wide as RGB."""
    source = ClipSource(uri=str(SHARED_DATA / name), end_seconds=0.05)
    chunk = next(process.decode(source, [64, 224]))
    truth = Image.fromarray(first_picture(name))
    small, large = (
        np.asarray(truth.resize((side, side), Image.Resampling.BICUBIC)) for side in (64, 224)
    )
    luma = np.array([0.299, 0.587, 0.114])
    assert psnr(chunk.pixels[224][0] @ luma, large @ luma) > 35
    assert psnr(coarse(chunk.pixels[64][0]), coarse(small)) > 32


@pytest.mark.parametrize(
    "name",
    [
        "clips/gomediainfo__sample.ts",  # decord seeks to pictures seconds away
        "torture/mp4parser__MOV00006.3gp",  # marks pictures as key frames that are none
        "clips/torchcodec__nasa_13013.mp4",
        "clips/scikitvideo__bikes.mp4",
        "torture/mmaction2__S001C001P001R001A001_rgb.avi",
    ],
)
@pytest.mark.parametrize("start", [1.0, 2.5])
def test_a_part_of_a_file_shows_what_the_whole_shows_then(process, name, start):
    whole, _ = decode(process, name)
    part, outcome = decode(process, name, start_seconds=start, end_seconds=start + 0.8)
    pictures = {
        int(k): picture
        for c in whole
        for k, picture in zip(c.frame_indices, c.pixels[SIDE_PX], strict=True)
    }
    assert outcome.status == "ok"
    offset, num_compared = round(start * 10), 0
    for c in part:
        for k, picture in zip(c.frame_indices, c.pixels[SIDE_PX], strict=True):
            if int(k) + offset in pictures:
                np.testing.assert_array_equal(picture, pictures[int(k) + offset])
                num_compared += 1
    assert num_compared >= 4


@pytest.mark.parametrize("number", [1, 15, 30])
def test_a_numbered_picture_is_found_under_its_number(process, number):
    folder = SHARED_DATA / "clips"
    chunks, _ = decode(process, "clips/pyscenedetect__counter.mp4")
    with Image.open(folder / f"reference/counter_frame{number:03d}.png") as image:
        reference = resize_square(np.asarray(image.convert("RGB")), SIDE_PX)
    likeness = {
        int(k): psnr(picture, reference)
        for c in chunks
        for k, picture in zip(c.frame_indices, c.pixels[SIDE_PX], strict=True)
    }
    with av.open(str(folder / "pyscenedetect__counter.mp4")) as container:
        shown_at = sorted(f.time for f in container.decode(video=0))
    k = int(np.ceil((shown_at[number - 1] - shown_at[0]) * 10 - 1e-6))
    assert max(likeness, key=likeness.get) == k


def test_times_agree_with_the_reference_of_another_library():
    from dsdi_ray.vision.timeline_reader import read_timeline
    from dsdi_ray.vision.video_stream import VideoFile

    (reference,) = (SHARED_DATA / "clips" / "reference").glob(
        "*nasa_13013*stream3.all_frames_info.json"
    )
    seconds = [float(row["pts_time"]) for row in json.loads(reference.read_text())]
    reader = read_timeline(VideoFile(str(SHARED_DATA / "clips/torchcodec__nasa_13013.mp4")))
    while True:
        try:
            next(reader)
        except StopIteration as end:
            timeline = end.value
            break
    ours = timeline.display_times * float(timeline.time_base)
    np.testing.assert_allclose(ours, sorted(seconds), atol=1e-4)
