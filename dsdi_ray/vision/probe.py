"""What a file says of itself: length, rate, size, codec, when and where it was taken."""

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from av.container import InputContainer
from av.video.stream import VideoStream
from PIL import ExifTags, Image

from dsdi_ray.errors import DecodeError
from dsdi_ray.vision.clip_reader import local_path
from dsdi_ray.vision.failures import short_reason
from dsdi_ray.vision.packet_decoding import decoded_frames
from dsdi_ray.vision.video_stream import check_file, looks_encrypted, open_video, tagged_seconds

_ISO_6709 = re.compile(r"^([+-]\d+(?:\.\d+)?)([+-]\d+(?:\.\d+)?)")
_SECONDS_PER_DURATION_UNIT = 1e-6  # of a container in FFmpeg


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """Facts of a file; None where it does not say.

    Attributes:
        duration_seconds: Length.
        source_fps: Average pictures per second.
        width: Of the stored picture, in pixels.
        height: Of the stored picture, in pixels.
        codec: FFmpeg's name of the codec, or Pillow's of the image format.
        rotation_degrees: How the display matrix turns it, counter-clockwise.
        capture_time: ISO 8601.
        latitude: Degrees north.
        longitude: Degrees east.
        probe_error: Why it cannot be read, None if it can.
    """

    duration_seconds: float | None = None
    source_fps: float | None = None
    width: int | None = None
    height: int | None = None
    codec: str | None = None
    rotation_degrees: int | None = None
    capture_time: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    probe_error: str | None = None


def probe(uri: str, media: str) -> ProbeResult:
    """Read a file's headers; a file that cannot be read gives a result with its reason.

    Args:
        uri: Path or ``file://`` URI.
        media: ``video`` or ``image``.
    """
    path = local_path(uri)
    try:
        check_file(path)
        return _probe_image(str(path)) if media == "image" else _probe_video(str(path))
    except DecodeError as problem:
        encrypted = "encrypted: " if looks_encrypted(path) else ""
        return ProbeResult(probe_error=f"{encrypted}{problem}")
    except (OSError, ValueError, SyntaxError) as error:
        return ProbeResult(probe_error=f"cannot be read: {short_reason(error)}")


def _probe_video(path: str) -> ProbeResult:
    container, stream = open_video(path)
    with container:
        duration: float | None = None
        tagged = tagged_seconds(stream)
        if stream.duration is not None and stream.time_base is not None:
            duration = float(stream.duration * stream.time_base)
        elif tagged is not None:  # the container's is that of its longest stream, such as sound
            duration = float(tagged - (stream.start_time or 0) * (stream.time_base or 0))
        elif container.duration is not None:
            duration = container.duration * _SECONDS_PER_DURATION_UNIT
        rate = stream.average_rate or stream.guessed_rate
        tags = {k.lower(): v for k, v in {**stream.metadata, **container.metadata}.items()}
        latitude, longitude = _location(tags)
        return ProbeResult(
            duration_seconds=duration if duration and duration > 0 else None,
            source_fps=float(rate) if rate else None,
            width=stream.width or None,
            height=stream.height or None,
            codec=stream.codec_context.name,
            rotation_degrees=_rotation(container, stream),
            capture_time=tags.get("com.apple.quicktime.creationdate") or tags.get("creation_time"),
            latitude=latitude,
            longitude=longitude,
        )


def _rotation(container: InputContainer, stream: VideoStream) -> int | None:
    # PyAV shows the display matrix on decoded pictures only; a second of trying must do.
    frame = next(decoded_frames(container, stream, lambda *_: None), None)
    return None if frame is None else frame.rotation


def _location(tags: Mapping[str, str]) -> tuple[float | None, float | None]:
    for key in ("com.apple.quicktime.location.iso6709", "location", "location-eng"):
        match = _ISO_6709.match(tags.get(key, ""))
        if match:
            return float(match[1]), float(match[2])
    return None, None


def _probe_image(path: str) -> ProbeResult:
    try:
        with Image.open(path) as image:
            return image_facts(image)
    except Image.DecompressionBombError as error:
        raise DecodeError(f"cannot be opened: {short_reason(error)}") from error


def image_facts(image: Image.Image) -> ProbeResult:
    """Facts of an image that is open; what damaged EXIF does not say is None."""
    facts = ProbeResult(
        width=image.width, height=image.height, codec=(image.format or "").lower() or None
    )
    try:
        return _with_exif(facts, image)
    except (OSError, ValueError, SyntaxError, KeyError, TypeError, struct.error):
        return facts  # the picture may be whole


def _with_exif(facts: ProbeResult, image: Image.Image) -> ProbeResult:
    exif = image.getexif()
    details = exif.get_ifd(ExifTags.IFD.Exif)
    taken = details.get(ExifTags.Base.DateTimeOriginal) or exif.get(ExifTags.Base.DateTime)
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    return replace(
        facts,
        capture_time=_exif_time(str(taken)) if taken else None,
        latitude=_degrees(gps, ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLatitudeRef, "S"),
        longitude=_degrees(gps, ExifTags.GPS.GPSLongitude, ExifTags.GPS.GPSLongitudeRef, "W"),
    )


def _exif_time(text: str) -> str | None:
    try:
        return datetime.strptime(text.strip("\0 "), "%Y:%m:%d %H:%M:%S").isoformat()
    except ValueError:
        return None


def _degrees(gps: Mapping[int, object], key: int, ref_key: int, negative: str) -> float | None:
    parts = gps.get(key)
    if not isinstance(parts, tuple) or len(parts) != 3:
        return None
    try:
        degrees: float = sum(float(part) / 60**i for i, part in enumerate(parts))
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return -degrees if str(gps.get(ref_key, "")).upper() == negative else degrees
