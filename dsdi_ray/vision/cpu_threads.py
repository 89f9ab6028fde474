"""Threads that each compute alone on a CPU, and how they share frames."""

from concurrent.futures import ThreadPoolExecutor

import torch

_MOST_PER_PASS = 1.5  # times a micro-batch


class LoneThreads(ThreadPoolExecutor):
    """Threads each of which runs whole torch operations alone, for work that comes in parts.

    Several threads in one operation wait for each other in a loop, and where other processes want
    the cores too the wait is for one that does not run. *Measured* on 2 cores, milliseconds per
    frame of resnest50d at 224 px, both threads in each operation and each in its own: 106 and 72 on
    an idle machine, 358 and 154 beside two busy processes; of a tiny network then 25 and 4.
    """

    def __init__(self, num_threads: int) -> None:
        super().__init__(num_threads, initializer=torch.set_num_threads, initargs=(1,))
        self._num_threads = num_threads

    def pass_sizes(self, num_frames: int, *, micro_batch: int) -> list[int]:
        """Frames of each forward pass, in order.

        Passes take a micro-batch each, but the last ones take up to half as much again where that
        lets all threads end together. *Measured*, two threads, milliseconds of resnet50 at 224 px:
        40 frames by 16, 16 and 8 in 1211, by 20 and 20 in 885; 48 in 1350 and 1141.
        """
        sizes, left = [], num_frames
        num_at_once = micro_batch * self._num_threads
        while left > _MOST_PER_PASS * num_at_once:
            sizes += [micro_batch] * self._num_threads
            left -= num_at_once
        if left < num_at_once:
            num_full, rest = divmod(left, micro_batch)
            return sizes + [micro_batch] * num_full + [rest] * bool(rest)
        share, num_larger = divmod(left, self._num_threads)
        num_smaller = self._num_threads - num_larger
        return sizes + [share + 1] * num_larger + [share] * num_smaller
