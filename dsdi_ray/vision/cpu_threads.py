"""Threads that each compute alone on a CPU."""

from concurrent.futures import ThreadPoolExecutor

import torch


def lone_threads(num_threads: int) -> ThreadPoolExecutor:
    """Threads each of which runs whole torch operations alone, for work that comes in parts.

    Several threads in one operation wait for each other in a loop, and where other processes want
    the cores too the wait is for one that does not run. *Measured* on 2 cores, milliseconds per
    frame of resnest50d at 224 px, both threads in each operation and each in its own: 106 and 72 on
    an idle machine, 358 and 154 beside two busy processes; of a tiny network then 25 and 4.
    """
    return ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,))
