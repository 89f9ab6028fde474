"""Ends processes as a power cut would."""

import subprocess
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
