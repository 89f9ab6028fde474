"""Ends processes as a power cut would."""

import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import psutil


def kill_all(driver: subprocess.Popen) -> None:
    """Kill a process and all that it started, Ray's servers and workers among them."""
    root = psutil.Process(driver.pid)
    everyone = [root, *root.children(recursive=True)]
    for process in everyone:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    driver.wait()
    psutil.wait_procs(everyone[1:], timeout=20)


def kill_once(victim: str, *, when: Callable[[], bool]) -> list[int]:
    """Kill the first process of an actor's class once a condition holds; its pid, when it was."""
    killed: list[int] = []

    def watch() -> None:
        while not killed:
            time.sleep(0.01)
            if not when():
                continue
            for process in psutil.Process().children(recursive=True):
                if victim in " ".join(process.cmdline()):
                    process.kill()
                    killed.append(process.pid)
                    return

    threading.Thread(target=watch, daemon=True).start()
    return killed
