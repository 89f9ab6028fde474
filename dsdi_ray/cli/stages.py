"""The stages of a long job: said as they begin, timed, and kept for the next start of it."""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from dsdi_ray.cli.job import say_stage
from dsdi_ray.storage.filesystems import write_bytes


class Stages:
    """Stages of a job and what each took, over all starts of the same command.

    Args:
        file: JSON of the seconds of earlier starts; it is written after each stage.
        num_stages: How many there are.
    """

    def __init__(self, file: Path, *, num_stages: int) -> None:
        self._file, self._num_stages, self._place = file, num_stages, 0
        self._before: dict[str, float] = {}
        with contextlib.suppress(FileNotFoundError, ValueError):  # times are not worth a failure
            self._before = json.loads(file.read_text("utf-8"))
        self._now: dict[str, float] = {}

    @contextlib.contextmanager
    def begin(self, name: str, what: str) -> Iterator[None]:
        """Say what begins, and time it.

        Args:
            name: A word or two, by which its time is kept.
            what: Line to show.
        """
        self._place += 1
        say_stage(f"{self._place}/{self._num_stages} {what}")
        started = time.monotonic()
        try:
            yield
        finally:  # a stage that is cut off took its time too
            self._now[name] = time.monotonic() - started
            write_bytes(self._file, json.dumps(self.seconds_in_all).encode())

    @property
    def seconds_now(self) -> Mapping[str, float]:
        """Of this start, by stage."""
        return self._now

    @property
    def seconds_in_all(self) -> dict[str, float]:
        """Of all starts, by stage, in the order of their first end."""
        names = [*self._before, *(name for name in self._now if name not in self._before)]
        return {n: self._before.get(n, 0.0) + self._now.get(n, 0.0) for n in names}
