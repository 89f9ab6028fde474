"""Which failures are the machine's and which the clip's."""

import errno
from pathlib import Path

import av
import pytest
from numbered_clips import result_of

from dsdi_ray.errors import DecodeError
from dsdi_ray.vision.failures import is_io_error, is_transient, reading_fault


@pytest.mark.parametrize("name", ["ENOENT", "EACCES", "ENOSPC", "ETIMEDOUT", "ESTALE", "EMFILE"])
def test_what_storage_and_system_say_is_transient(name):
    assert is_transient(OSError(getattr(errno, name), name))


def test_it_is_seen_through_the_error_that_was_raised_from_it():
    def open_absent() -> None:
        try:
            av.open("/absent/clip.mp4")
        except OSError as error:
            raise DecodeError("cannot be opened") from error

    with pytest.raises(DecodeError) as problem:
        open_absent()
    assert is_transient(problem.value)


def test_what_the_content_causes_is_not_transient(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video" * 99)
    with pytest.raises(av.FFmpegError) as error:
        av.open(str(tmp_path / "a.mp4"))
    assert not is_transient(error.value)
    assert not is_transient(ValueError("odd"))
    assert not is_transient(MemoryError())


def test_an_io_error_needs_a_second_look_at_the_file(tmp_path):
    assert is_io_error(OSError(errno.EIO, "I/O"))
    assert not is_transient(OSError(errno.EIO, "I/O"))
    (tmp_path / "whole.mp4").write_bytes(bytes(3 * 2**20))
    assert result_of(reading_fault(tmp_path / "whole.mp4")) is None
    unreadable = Path("/proc/self/mem")  # the kernel answers reads at 0 with an I/O error
    if unreadable.exists():
        assert result_of(reading_fault(unreadable)).errno == errno.EIO
