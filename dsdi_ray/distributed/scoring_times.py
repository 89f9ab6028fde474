"""Where the time of a scoring job goes: fetching, decoding, scoring."""

import time
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from dsdi_ray.distributed.scoring_pool import ScoringPool

STAGES = ("fetch", "decode", "score")
_BUSY = 0.6  # a pool that works for a greater share of the time is what the others wait for


class ScoringTimes:
    """Adds up what the actors say of their work.

    Attributes:
        num_frames: Frames scored, once per frame, whatever the number of members.
    """

    def __init__(self, pool: ScoringPool) -> None:
        self._pool = pool
        self._busy_seconds = dict.fromkeys(STAGES, 0.0)
        self._started: float | None = None
        self.num_frames = 0

    @property
    def seconds(self) -> float:
        """Wall clock since the first result; until then the actors start."""
        return max(1e-3, time.monotonic() - self._started) if self._started else 1e-3

    def add(self, scored: pa.Table) -> None:
        """Take rows of the scoring actors."""
        for stage in STAGES:
            self._busy_seconds[stage] += pc.sum(scored[f"{stage}_seconds"]).as_py() or 0.0
        if self._started is None:  # the first result was worked on before it arrived
            self._started = time.monotonic() - sum(self._busy_seconds.values())
        self.num_frames += pc.sum(pc.struct_field(scored["outcome"], "frames_scored")).as_py() or 0

    def shares(self) -> Mapping[str, float]:
        """Share of its time that each pool worked, 0 to 1, per stage."""
        actors = self._actors()
        return {
            stage: min(1.0, busy / (actors[stage] * self.seconds))
            for stage, busy in self._busy_seconds.items()
        }

    def limited_by(self) -> str:
        """The stage that the others waited for."""
        shares = self.shares()
        # A decode actor fetches and decodes, one after the other.
        longer = max("fetch", "decode", key=lambda stage: shares[stage])
        busy = {longer: shares["fetch"] + shares["decode"], "score": shares["score"]}
        busiest = max(busy, key=lambda stage: busy[stage])
        return busiest if busy[busiest] > _BUSY else "start-up and coordination"

    def estimate_seconds(self, *, num_frames: float, files_per_file_seen: float) -> float | None:
        """How long all of the work takes all actors, going by what was seen, without start-up.

        Args:
            num_frames: Of all of the work.
            files_per_file_seen: How many times as many files there are as were fetched so far.

        Returns:
            None where nothing was seen.
        """
        if not self.num_frames:
            return None
        times_as_many = num_frames / self.num_frames
        busy = {stage: seconds * times_as_many for stage, seconds in self._busy_seconds.items()}
        busy["fetch"] = self._busy_seconds["fetch"] * files_per_file_seen
        cpu_seconds = busy["decode"]
        if not self._pool.use_gpu:
            cpu_seconds += busy["score"] * (self._pool.threads_per_scorer or 1)
        return max(
            (busy["fetch"] + busy["decode"]) / self._pool.num_decoders,  # one after the other
            busy["score"] / self._pool.num_scorers,
            cpu_seconds / self._pool.num_cpus,
        )

    def _actors(self) -> Mapping[str, int]:
        num_decoders = self._pool.num_decoders
        return {"fetch": num_decoders, "decode": num_decoders, "score": self._pool.num_scorers}
