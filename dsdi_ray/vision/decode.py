"""What decoding is asked for and what it gives; light, so that every layer may import it.

Sampling rule: frame k of a clip is the picture on screen at ``start + k / fps``. The start of a
whole file is the display time of its first picture. A grid point that shows the picture of the
grid point before it gives nothing new, so a source slower than ``fps`` yields each of its pictures
once, under the first k that shows it.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dsdi_ray.errors import ConfigError

DECODE_VERSION = 1  # raise it when sampling, colour or resizing changes: old scores no longer fit

Status = Literal["ok", "partial", "failed"]


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """How clips become frames.

    Attributes:
        fps: Frames sampled per second.
        chunk_frames: Sampled frames passed on together; memory is bounded by it, not by length.
        progress_timeout_seconds: A decoder that gives no sign of progress for so long is killed.

    Raises:
        ConfigError: If one is out of range.
    """

    fps: float = 10.0
    chunk_frames: int = 64
    progress_timeout_seconds: float = 30.0

    def __post_init__(self) -> None:
        if not 0 < self.fps <= 1000:
            raise ConfigError(f"fps must be in (0, 1000], got {self.fps}")
        if self.chunk_frames < 1:
            raise ConfigError(f"chunk_frames must be at least 1, got {self.chunk_frames}")
        if self.progress_timeout_seconds <= 0:
            raise ConfigError(
                f"progress_timeout_seconds must be above 0, got {self.progress_timeout_seconds}"
            )

    @property
    def decode_id(self) -> str:
        """Hash of what decides which pictures are scored and how their pixels come about.

        Chunks, deadlines and which decoder served do not change it, nor does the input size, which
        is part of a member's identity.
        """
        meaning = {"fps": float(self.fps), "version": DECODE_VERSION}
        return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class ClipSource:
    """A clip to decode: a file or a part of one.

    Attributes:
        uri: Path or ``file://`` URI.
        media: ``video`` or ``image``.
        start_seconds: Start in the file, None for its first picture.
        end_seconds: End in the file, None for its last picture.
    """

    uri: str
    media: str = "video"
    start_seconds: float | None = None
    end_seconds: float | None = None


@dataclass(frozen=True)
class FrameChunk:
    """Consecutive sampled frames of a clip, T of them; samples that did not decode are left out.

    Attributes:
        chunk_index: Place among the clip's chunks, from 0.
        frame_indices: k of each frame, ``[T]``.
        times_seconds: ``k / fps``, from the clip's start, ``[T]``.
        pixels: RGB pictures resized to a square, per side in pixels: ``[T, S, S, 3]``.
    """

    chunk_index: int
    frame_indices: NDArray[np.int32]
    times_seconds: NDArray[np.float64]
    pixels: dict[int, NDArray[np.uint8]]


@dataclass(frozen=True, kw_only=True)
class DecodeOutcome:
    """What became of a clip.

    Attributes:
        status: ``ok`` (every sample decoded), ``partial`` (some, or damage may show) or ``failed``
            (none).
        error: Why it is not ok.
        is_transient: Whether that is not the clip's fault (storage, permissions, a file that is
            gone), so that it is worth another try.
        note: Why a decoder was passed over, and other things worth knowing.
        decoder: ``decord``, ``pyav``, ``decord+pyav``, ``pillow``, or None where none gave a frame.
        frames_expected: Samples that the clip's time stamps promise.
        frames_scored: Samples that decoded.
        attempts: Decoders started on the clip.
        seconds: Wall clock.
    """

    status: Status
    error: str | None = None
    is_transient: bool = False
    note: str | None = None
    decoder: str | None = None
    frames_expected: int = 0
    frames_scored: int = 0
    attempts: int = 1
    seconds: float = 0.0
