"""1080p30 footage for the benchmarks: a camera glides over a large textured picture."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageFilter

SIZE = (1920, 1080)
_FPS = 30
_NUM_DIFFERENT = 2


def make_clips(folder: Path, *, num_clips: int, seconds: float) -> list[Path]:
    """Write H.264 clips with x264's default GOP; files that are there already are kept.

    Two are encoded, the others hold the same packets under another title, so that every file has a
    content of its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    originals = []
    for i in range(min(num_clips, _NUM_DIFFERENT)):
        path = folder / f"original{i}-{seconds:g}s.mp4"
        if not path.exists():
            _encode(path, seed=i, num_pictures=round(seconds * _FPS))
        originals.append(path)
    clips = []
    for i in range(num_clips):
        path = folder / f"clip{i:04d}-{seconds:g}s.mp4"
        if not path.exists():
            _copy(originals[i % len(originals)], path, title=f"clip {i}")
        clips.append(path)
    return clips


def _encode(path: Path, *, seed: int, num_pictures: int) -> None:
    rng = np.random.default_rng(seed)
    width, height = SIZE[0] + 800, SIZE[1] + 600
    ground = Image.new("RGB", (width, height), (90, 110, 70))
    for cells, radius in ((24, 30), (120, 4), (600, 0)):  # fields, houses, leaves
        noise = rng.integers(0, 255, (cells * height // width, cells, 3), dtype=np.uint8)
        layer = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        if radius:
            layer = layer.filter(ImageFilter.GaussianBlur(radius))
        ground = Image.blend(ground, layer, 0.4)
    temporary = path.with_suffix(".tmp.mp4")
    with av.open(str(temporary), "w") as container:
        stream = container.add_stream("libx264", rate=_FPS)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.time_base = Fraction(1, _FPS)
        stream.options = {"preset": "veryfast", "crf": "23"}
        for i in range(num_pictures):
            x = 400 * (1 + np.sin(i / 170 + seed))
            y = 300 * (1 + np.cos(i / 230))
            box = (int(x), int(y), int(x) + SIZE[0], int(y) + SIZE[1])
            container.mux(stream.encode(av.VideoFrame.from_image(ground.crop(box))))
        container.mux(stream.encode(None))
    temporary.rename(path)


def _copy(source: Path, path: Path, *, title: str) -> None:
    temporary = path.with_suffix(".tmp.mp4")
    with av.open(str(source)) as given, av.open(str(temporary), "w") as copy:
        copy.metadata["title"] = title
        stream = copy.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(given.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    temporary.rename(path)
