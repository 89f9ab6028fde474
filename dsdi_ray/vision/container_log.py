"""What FFmpeg has to say of a container that is damaged: it passes over holes and logs them alone."""

import av
from av.container import InputContainer

_MAX_COMPLAINT = 120  # letters
_RAW = "raw "  # streams without a container, named as their decoder is, whose lines are not meant


class ContainerLog:
    """What FFmpeg's reader of containers has to say since the last time, which it logs alone.

    PyAV counts such lines, of all threads, and keeps the last, where a log level is set, be it one that
    lets none pass; so it is in the decoder's process. Nothing is changed or taken from others.
    """

    def __init__(self) -> None:
        self._num_lines, _ = av.logging.get_last_error()

    def complaint(self, container: InputContainer) -> str | None:
        """An error in the container."""
        num_lines, line = av.logging.get_last_error()
        if num_lines == self._num_lines:
            return None
        self._num_lines = num_lines
        name = container.format.name
        if line is None or line[1] != name or container.format.long_name.startswith(_RAW):
            return None
        return line[2].strip()[:_MAX_COMPLAINT]
