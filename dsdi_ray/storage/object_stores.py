"""Buckets of S3 and Google Cloud Storage: who asks, where they are, and their objects as files."""

import os
from datetime import timedelta
from functools import lru_cache
from typing import BinaryIO

import pyarrow as pa
from pyarrow import fs as pafs

from dsdi_ray.errors import DataError
from dsdi_ray.storage.retries import max_attempts

_ANONYMOUS = "anonymous"
_RANGE_BYTES = 8 * 2**20
_CONNECT_TIMEOUT_SECONDS = 10
_STALL_TIMEOUT_SECONDS = 30
_GCS_RETRY_TIME = timedelta(seconds=60)


def resolve_bucket(uri: str) -> tuple[pafs.FileSystem, str]:
    """The file system of an ``s3://`` or ``gs://`` URI, and its path there: ``bucket/key``.

    Raises:
        DataError: If the URI has credentials in it.
    """
    scheme, user, path = _parts(uri)
    is_anonymous = user == _ANONYMOUS
    if scheme == "gs":
        return _gcs(is_anonymous=is_anonymous), path
    address = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    bucket = path.partition("/")[0]
    return _s3(bucket, address=address or "", is_anonymous=is_anonymous), path


class ObjectFile:
    """An object of S3, Google Cloud Storage, or another store that Arrow knows."""

    has_ranges = True

    def __init__(self, filesystem: pafs.FileSystem, path: str) -> None:
        try:
            self._file = filesystem.open_input_file(path)
        except FileNotFoundError as error:
            raise FileNotFoundError("no such object (HTTP status 404)") from error
        except pa.ArrowException as error:  # some of which are no OSError
            raise OSError(str(error)) from error
        self.size: int | None = self._file.size()
        facts = {k.lower(): v.decode() for k, v in (self._file.metadata() or {}).items()}
        # Google's ETag changes with an object's labels, its MD5 does not but may be absent.
        self.version = facts.get("md5hash") or facts.get("etag") or None

    def copy_to(self, out: BinaryIO, start: int = 0, stop: int | None = None) -> None:
        """Append bytes ``start`` to ``stop`` to a file, in ranges that are retried one by one."""
        end = self._file.size() if stop is None else stop
        places = range(start, end, _RANGE_BYTES)
        try:
            out.writelines(self._file.read_at(min(_RANGE_BYTES, end - p), p) for p in places)
        except pa.ArrowException as error:
            raise OSError(str(error)) from error


def _parts(uri: str) -> tuple[str, str, str]:
    """Scheme, user and path."""
    scheme, _, everything = uri.partition("://")
    user, at, location = everything.partition("@")
    if not at or "/" in user:  # no @, or one of the key
        user, location = "", everything
    if user not in {"", _ANONYMOUS}:
        raise DataError(
            f"{scheme}://...@{location}: credentials do not belong in a URI, which manifests and "
            "stores keep; use the usual variables or a profile"
        )
    return scheme, user, location.rstrip("/")


@lru_cache(maxsize=64)
def _s3(bucket: str, *, address: str, is_anonymous: bool) -> pafs.S3FileSystem:
    scheme, _, endpoint = address.rpartition("://")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return pafs.S3FileSystem(
        anonymous=is_anonymous,
        scheme=scheme or "https",
        endpoint_override=endpoint.rstrip("/") or None,
        region=(region or "us-east-1") if endpoint else _region_of(bucket) or region,
        connect_timeout=_CONNECT_TIMEOUT_SECONDS,
        request_timeout=_STALL_TIMEOUT_SECONDS,
        allow_delayed_open=True,  # one request for a small object instead of three
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=max_attempts()),
    )


def _region_of(bucket: str) -> str | None:
    """The region that a bucket is in, whatever the user's own; None where nobody answers."""
    try:
        return str(pafs.resolve_s3_region(bucket))
    except OSError:
        return None


@lru_cache(maxsize=2)
def _gcs(*, is_anonymous: bool) -> pafs.GcsFileSystem:
    return pafs.GcsFileSystem(anonymous=is_anonymous, retry_time_limit=_GCS_RETRY_TIME)
