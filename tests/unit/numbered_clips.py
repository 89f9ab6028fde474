"""Clips whose pictures say which they are: stripes of black and white spell a number in binary."""

from collections.abc import Callable, Generator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from dsdi_ray.vision.clip_reader import ClipReader
from dsdi_ray.vision.decode import ClipSource, DecodeOutcome, DecodeSettings, FrameChunk

NUM_BITS = 9
WIDTH, HEIGHT = 220, 120
SIDE_PX = 64
MILLISECOND = Fraction(1, 1000)
# Way to decode -> B-frames with which it serves: decord cannot skip those that are not sampled.
B_FRAMES = {"decord": 0, "skipping": 3, "full": 3}


def numbered_picture(number: int) -> NDArray[np.uint8]:
    """RGB ``[HEIGHT, WIDTH, 3]``; first stripe white, last black, bits of the number between."""
    bits = [1, *((number >> i) & 1 for i in range(NUM_BITS)), 0]
    stripes = np.repeat(np.array(bits, np.uint8) * 215 + 20, WIDTH // len(bits))
    return np.broadcast_to(stripes[None, :, None], (HEIGHT, WIDTH, 3)).copy()


def number_of(picture: NDArray[np.uint8]) -> int:
    """Read the number from a picture of any size."""
    height, width, _ = picture.shape
    centres = (np.arange(NUM_BITS + 2) + 0.5) * width / (NUM_BITS + 2)
    bits = picture[height // 2, centres.astype(int)].mean(axis=-1) > 127
    assert bits[0]
    assert not bits[-1]
    return int((bits[1:-1] << np.arange(NUM_BITS)).sum())


def write_clip(
    path: Path,
    *,
    codec: str = "libx264",
    num_pictures: int = 50,
    fps: int = 25,
    shown_at_ms: Callable[[int], int] | None = None,
    options: Mapping[str, str] | None = None,
    pixel_format: str = "yuv420p",
    gop: int = 10,
    max_b_frames: int | None = 0,
    container_options: Mapping[str, str] | None = None,
) -> Path:
    """Encode numbered pictures, evenly in time or at the times given; None: the codec's B-frames."""
    with av.open(str(path), "w", options=dict(container_options or {})) as container:
        stream = container.add_stream(codec, rate=fps, options=dict(options or {}))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixel_format
        stream.codec_context.gop_size = gop
        if max_b_frames is not None:
            stream.codec_context.max_b_frames = max_b_frames
        if shown_at_ms is not None:
            stream.codec_context.time_base = MILLISECOND
        for number in range(num_pictures):
            frame = av.VideoFrame.from_ndarray(numbered_picture(number), format="rgb24")
            frame.pts = number if shown_at_ms is None else shown_at_ms(number)
            frame.time_base = Fraction(1, fps) if shown_at_ms is None else MILLISECOND
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def decode(
    path: Path,
    *,
    is_careful: bool = False,
    start: float | None = None,
    end: float | None = None,
    first_chunk: int = 0,
    sizes: tuple[int, ...] = (SIDE_PX,),
    media: str = "video",
    settings: DecodeSettings | None = None,
) -> tuple[list[FrameChunk], DecodeOutcome]:
    """Decode in this process."""
    source = ClipSource(uri=str(path), media=media, start_seconds=start, end_seconds=end)
    reader = ClipReader(source, sizes, settings or DecodeSettings(), is_careful=is_careful)
    *parts, outcome = (p for p in reader.read(first_chunk) if not isinstance(p, float | None))
    return parts, outcome


def result_of(generator: Generator[Any, None, Any]) -> Any:
    """What a generator returns, its signs of progress passed over."""
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def numbers(chunks: list[FrameChunk], size: int = SIDE_PX) -> dict[int, int]:
    """Frame index -> number of the picture that was returned for it."""
    return {
        int(k): number_of(picture)
        for chunk in chunks
        for k, picture in zip(chunk.frame_indices, chunk.pixels[size], strict=True)
    }
