"""Files on web servers (``http://``, ``https://``), read only, by the standard library alone."""

import errno
import time
from collections.abc import Callable
from email.message import Message
from http.client import HTTPException, HTTPResponse
from typing import BinaryIO, TypeVar
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from dsdi_ray.storage.retries import backoff_seconds, max_attempts

_TIMEOUT_SECONDS = 30.0
_BLOCK_BYTES = 2**20
_NOW_AND_THEN = frozenset({408, 425, 429})  # client errors that pass; those of servers all may
_FAILED_ON_ITS_WAY = (OSError, HTTPException)

T = TypeVar("T")


class HttpFile:
    """A file on a web server, read in order or, where the server has ranges, from any place.

    Asked for with GET alone: addresses that are signed for GET answer no HEAD.

    Attributes:
        size: In bytes, None where the server does not say.
        version: What tells one content from another (its ETag), None where the server has none.
        has_ranges: Whether it can be read from any place.

    Raises:
        FileNotFoundError: If there is none.
        OSError: If the server refuses or, after retries, does not answer.
    """

    def __init__(self, url: str) -> None:
        self._url = _quoted(url)
        self.size, self.version, self.has_ranges = _retried(self._facts)

    def copy_to(self, out: BinaryIO, start: int = 0, stop: int | None = None) -> None:
        """Append bytes ``start`` to ``stop`` to a file; what breaks off goes on where it was.

        Raises:
            OSError: If the server, after retries, does not give all of it.
        """
        stop = self.size if stop is None else stop
        begin = out.tell()
        num_failures = 0
        while stop is None or start + out.tell() - begin < stop:
            place = out.tell()
            try:
                self._copy_once(out, start + place - begin, stop)
            except _FAILED_ON_ITS_WAY as error:
                if not self.has_ranges:  # from the start again
                    out.seek(begin)
                    out.truncate()
                num_failures = 1 if out.tell() > place else num_failures + 1
                _wait_or_raise(error, num_failures)
            else:
                return

    def _copy_once(self, out: BinaryIO, start: int, stop: int | None) -> None:
        with _get(self._url, start, stop if self.has_ranges else None) as response:
            if start > 0 and response.status != 206:
                raise OSError("the server no longer gives parts of the file")
            while block := response.read(_BLOCK_BYTES):
                out.write(block)
                start += len(block)
        if stop is not None and start < stop:
            raise OSError(f"the connection ended {stop - start} bytes early")

    def _facts(self) -> tuple[int | None, str | None, bool]:
        try:
            with _get(self._url, 0, 1) as response:
                return _facts_of(response.headers, has_ranges=response.status == 206)
        except HTTPError as error:
            if error.code != 416:  # the answer where the file has no first byte
                raise
            return _facts_of(error.headers, has_ranges=True)


def _facts_of(headers: Message, *, has_ranges: bool) -> tuple[int | None, str | None, bool]:
    if has_ranges:
        size = str(headers["Content-Range"]).rpartition("/")[2]
    else:
        size = str(headers["Content-Length"])
    return int(size) if size.isdigit() else None, headers["ETag"], has_ranges


def _get(url: str, start: int, stop: int | None) -> HTTPResponse:
    request = Request(url, headers={"User-Agent": "dsdi-ray"})  # noqa: S310 - http(s) by contract
    if start or stop is not None:
        request.add_header("Range", f"bytes={start}-{'' if stop is None else stop - 1}")
    try:
        response: HTTPResponse = urlopen(request, timeout=_TIMEOUT_SECONDS)  # noqa: S310
    except HTTPError as error:
        error.close()  # its connection; status and headers stay
        if error.code in {404, 410}:
            raise FileNotFoundError(f"no such file (HTTP status {error.code})") from error
        raise
    return response


def _retried(request: Callable[[], T]) -> T:
    num_failures = 0
    while True:
        try:
            return request()
        except _FAILED_ON_ITS_WAY as error:
            num_failures += 1
            _wait_or_raise(error, num_failures)


def _wait_or_raise(error: BaseException, num_failures: int) -> None:
    """Wait before another try, or raise what went wrong where none would help."""
    is_final = isinstance(error, FileNotFoundError) or (
        isinstance(error, OSError) and error.errno == errno.ENOSPC  # of the copy, not the server
    )
    if isinstance(error, HTTPError):
        is_final = error.code < 500 and error.code not in _NOW_AND_THEN
    if is_final or num_failures >= max_attempts():
        if isinstance(error, HTTPError):
            raise OSError(f"HTTP status {error.code} ({error.reason})") from error
        raise error if isinstance(error, OSError) else OSError(str(error)) from error
    time.sleep(backoff_seconds(num_failures))


def _quoted(url: str) -> str:
    """Quote what an address must not hold, such as blanks; what is quoted already stays.

    Raises:
        OSError: If it is no address.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise OSError(str(error)) from error
    kept = "/%:@!$&'()*+,;=~?"
    return urlunsplit(parts._replace(path=quote(parts.path, kept), query=quote(parts.query, kept)))
