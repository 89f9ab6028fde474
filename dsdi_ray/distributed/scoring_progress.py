"""The progress line of a scoring job."""

import time
from collections.abc import Sequence

from dsdi_ray.distributed.scoring_times import ScoringTimes
from dsdi_ray.progress import progress_bar
from dsdi_ray.storage.score_plan import ScoringPlan
from dsdi_ray.storage.score_writer import ScoreWriter


class ScoringProgress:
    """Frames and clips done, what is busy, failures, ETA.

    The line counts frames, so that a long file is seen to get on and clips of any lengths give an
    ETA. How many there are in all is taken from the files' lengths, and put right clip by clip.

    Args:
        plan: The work.
        writer: What is done of it.
        times: How busy the actors are.
        fps: Frames per second that are scored.
    """

    def __init__(
        self, plan: ScoringPlan, writer: ScoreWriter, times: ScoringTimes, *, fps: float
    ) -> None:
        self._writer, self._times = writer, times
        self._expected = plan.frames_per_item(fps)
        self._expected_left = float(self._expected.sum())
        self._num_done = 0
        total = round(self._expected_left) or None  # None where no length is known
        self._bar = progress_bar(total=total, description="Scoring", unit="frame")

    def close(self) -> None:
        """End the line."""
        self._bar.close()

    def update(self, complete: Sequence[int]) -> None:
        """Show what the writer and the times know now.

        Args:
            complete: Work items, by work_id, that are complete since the last time.
        """
        if not self._num_done and not self._bar.n:  # the actors' start says nothing of the rate
            self._bar.start_t = self._bar.last_print_t = time.time() - self._times.seconds
        self._num_done += len(complete)
        self._expected_left -= float(self._expected[list(complete)].sum())
        num_frames = self._writer.num_frames + self._writer.num_frames_arriving
        if self._bar.total is not None:
            self._bar.total = max(num_frames, self._writer.num_frames + round(self._expected_left))
        busy = ", ".join(f"{name} {share:.0%}" for name, share in self._times.shares().items())
        self._bar.set_postfix_str(
            f"{self._num_done:,}/{len(self._expected):,} clips, busy: {busy}, "
            f"{self._writer.num_failed} failed",
            refresh=False,
        )
        self._bar.update(num_frames - self._bar.n)
