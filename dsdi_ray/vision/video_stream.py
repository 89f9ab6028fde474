"""A file's video stream through PyAV, opened."""

import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from dsdi_ray.errors import DecodeError
from dsdi_ray.vision.container_log import ContainerLog
from dsdi_ray.vision.failures import short_reason

MP4, MATROSKA = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"  # as FFmpeg calls them
# FFmpeg decodes a file's first pictures to open it. *Measured*: 1080p H.264 29 ms, 1 ms without.
_NOTHING_DECODED = {"skip_frame": "all"}
INDEXED = frozenset((MP4, MATROSKA))  # containers whose parts are found by an index
# Texts that name other files, whose pictures would be taken for theirs.
_PLAYLISTS = frozenset(("concat", "hls", "dash", "sdp", "imf"))
_BEFORE_ALL = -(2**40)  # in any time base
_MAX_SIDE_PX = 16_384
_MAX_PICTURE_PX = 200_000_000


def check_file(path: Path) -> None:
    """Refuse what no decoder should open: a pipe would be waited for without end.

    Raises:
        DecodeError: If it is no regular file, or empty.
        OSError: If it is not there.
    """
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise DecodeError("not a regular file")
    if facts.st_size == 0:
        raise DecodeError("the file is empty (0 bytes)")


def open_video(path: str) -> tuple[InputContainer, VideoStream]:
    """Open a file and pick its best video stream: as FFmpeg ranks them, of equals the largest.

    Cover art does not count, nor a single picture beside a film.

    Raises:
        DecodeError: If the file cannot be opened, holds no video, or one of absurd size.
    """
    container = _open_container(path, _NOTHING_DECODED)
    if not _is_told_by_headers(container):
        container.close()
        container = _open_container(path, {})
    try:
        stream = _best_video_stream(container)
    except DecodeError:
        container.close()
        raise
    stream.codec_context.thread_count = 1
    stream.thread_type = "NONE"
    return container, stream


def _open_container(path: str, options: Mapping[str, str]) -> InputContainer:
    try:
        container = av.open(path, mode="r", options=dict(options), metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DecodeError(f"cannot be opened: {short_reason(error)}") from error
    if container.format.name in _PLAYLISTS:
        container.close()
        raise DecodeError("a list of other files and no video")
    return container


def _is_told_by_headers(container: InputContainer) -> bool:
    """Whether a container that was opened with nothing decoded tells all that a decoder must know.

    That is how late it may show a picture: in MP4, by headers and display times, if it does reorder.
    """
    streams = container.streams.video
    return (
        container.format.name == MP4
        and len(streams) == 1
        and _has_decoder(streams[0])
        and bool(streams[0].codec_context.has_b_frames)
    )


class VideoFile:
    """A file's video stream, opened once for reading its packets and then for decoding them.

    Args:
        path: The file.

    Attributes:
        complaint: What FFmpeg had to say of the container, of which it reads some MB to open it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.complaint: str | None = None
        self._rewound: tuple[InputContainer, VideoStream] | None = None

    def open(self) -> tuple[InputContainer, VideoStream]:
        """A container at its start, for the caller to close, of which nothing was decoded.

        Raises:
            DecodeError: As :func:`open_video`.
        """
        rewound, self._rewound = self._rewound, None
        if rewound is not None:
            return rewound
        log = ContainerLog()
        container, stream = open_video(self.path)
        self.complaint = log.complaint(container)
        return container, stream

    @contextmanager
    def packets(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        """Lend a container to who decodes nothing; the next to open the file has it again."""
        container, stream = self.open()
        try:
            yield container, stream
            if _has_gone_back(container, stream):
                self._rewound = container, stream
        finally:
            if self._rewound is None:
                container.close()

    def close(self) -> None:
        """Close what is open."""
        if self._rewound is not None:
            self._rewound[0].close()
        self._rewound = None


def _has_gone_back(container: InputContainer, stream: VideoStream) -> bool:
    """Whether a container that was read stands at its first packet again, whichever that is."""
    if container.format.name != MP4:  # an index of other containers leads to the first key frame
        return False
    try:
        container.seek(_BEFORE_ALL, stream=stream, backward=True)
    except (av.FFmpegError, OSError):
        return False
    return True


def _has_decoder(stream: VideoStream) -> bool:
    """False for a codec that FFmpeg does not know, whatever the types say."""
    context: object = stream.codec_context
    return context is not None


def _best_video_stream(container: InputContainer) -> VideoStream:
    cover = av.stream.Disposition.attached_pic
    best = container.streams.best("video")
    films = [s for s in container.streams.video if not s.disposition & cover]
    films = [
        s for s in films if s.frames != 1
    ] or films  # a picture beside the film, not told as cover
    stream = best if best in films else next(iter(films), None)
    if films and not any(s.frames or s.bit_rate for s in films):  # FFmpeg takes the first
        stream = max(films, key=_rank)
    if not isinstance(stream, VideoStream):
        kinds = [s.type for s in container.streams]
        listed = ", ".join(f"{kinds.count(k)} {k}" for k in dict.fromkeys(kinds))
        raise DecodeError(f"no video stream (streams: {listed or 'none'})")
    if not _has_decoder(stream):
        raise DecodeError("no decoder for the video's codec")
    width, height = stream.width, stream.height
    if max(width, height) > _MAX_SIDE_PX or width * height > _MAX_PICTURE_PX:
        raise DecodeError(
            f"picture size {width}x{height} is above {_MAX_SIDE_PX} px a side or "
            f"{_MAX_PICTURE_PX // 10**6} megapixels"
        )
    return stream


def _rank(stream: VideoStream) -> tuple[bool, int]:
    is_default = bool(stream.disposition & av.stream.Disposition.default)
    return is_default, stream.width * stream.height


def tagged_seconds(stream: VideoStream) -> Fraction | None:
    """When a stream ends, by Matroska's tag ``DURATION``, such as ``00:00:04.023000000``."""
    try:
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        return 3600 * int(hours) + 60 * int(minutes) + Fraction(seconds)
    except (KeyError, ValueError):
        return None


def looks_encrypted(path: Path) -> bool:
    """Whether a file's headers name an encryption scheme of MP4 (CENC) or Matroska.

    FFmpeg hides MP4's once it has parsed it, so the boxes are looked for in the first MiB.
    """
    try:
        check_file(path)
        with path.open("rb") as file:
            head = file.read(2**20)
        if b"encv" in head and (b"tenc" in head or b"sinf" in head):
            return True
        with av.open(path, metadata_errors="replace") as container:
            return any("enc_key_id" in s.metadata for s in container.streams.video)
    except (DecodeError, av.FFmpegError, OSError, ValueError):
        return False
