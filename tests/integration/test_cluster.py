"""The scoring job on a running cluster: a real head on loopback, `ray job submit`, twice."""

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from footage import make_member, write_clip

from dsdi_ray.storage.bundles import write_ensemble
from dsdi_ray.storage.score_store import ScoreStore

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
LISTENS = "0A"  # the kernel's number of the state
pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="processes are found in /proc"),
]


@dataclass(frozen=True)
class Head:
    """A head that `ray start` left running.

    Attributes:
        session: Session of its processes, which are all of `ray start`'s descendants.
        client_env: Environment of commands that talk to it.
    """

    session: int
    client_env: dict[str, str]

    def pids(self) -> set[int]:
        """Its processes and what these started; a job's driver has a session of its own."""
        parents: dict[int, int] = {}
        own = set()
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, parent, _, session = stat.read_text().rpartition(")")[2].split()[:4]
            except OSError:  # it has ended
                continue
            if state != "Z":
                parents[int(stat.parent.name)] = int(parent)
                own |= {int(stat.parent.name)} if int(session) == self.session else set()
        while more := {p for p, parent in parents.items() if parent in own} - own:
            own |= more
        return own

    def ray(self, *args: object) -> tuple[str, set[str]]:
        """Run a command of Ray's that must succeed.

        Returns:
            Its standard output and error, and where the head's processes listened meanwhile.
        """
        listening: set[str] = set()
        with tempfile.TemporaryFile("w+") as output:
            command = subprocess.Popen(
                [BIN / "ray", *map(str, args)],
                env=self.client_env,
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            deadline = time.monotonic() + 400
            while command.poll() is None:
                if time.monotonic() > deadline:
                    command.kill()
                listening |= listening_addresses(self.pids())
                time.sleep(0.5)
            output.seek(0)
            text = output.read()
        assert command.returncode == 0, text
        return text, listening


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def end(head: Head) -> None:
    """End this head's processes and no others; `ray stop` would end every Ray of the machine."""
    pids = head.pids()
    for signal_number, seconds in ((signal.SIGTERM, 5), (signal.SIGKILL, 20)):
        pids |= head.pids()
        for pid in pids:
            try:
                os.kill(pid, signal_number)
            except ProcessLookupError:
                continue
        deadline = time.monotonic() + seconds
        while (pids := {p for p in pids if is_running(p)} | head.pids()) and (
            time.monotonic() < deadline
        ):
            time.sleep(0.2)
    assert not pids, f"still running: {pids}"


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """The head of cluster/README.md with a token, ports and a folder of its own."""
    # Not pytest's folder: a socket's path may have 107 bytes.
    with tempfile.TemporaryDirectory(
        prefix="dsdi",
        dir="/tmp",
        ignore_cleanup_errors=True,
    ) as folder:
        token = Path(folder) / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        port, dashboard_port, agent_port, client_port = free_ports(4)
        # What this process or its local Ray set for themselves is not the cluster's business.
        env = {name: v for name, v in os.environ.items() if not name.startswith("RAY_")}
        env |= {
            "PATH": f"{BIN}{os.pathsep}{env['PATH']}",  # the job's `python`
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
        }
        client_env = {**env, "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard_port}"}
        log = Path(folder) / "start.log"
        with log.open("wb") as output:
            starting = subprocess.Popen(
                [
                    BIN / "ray", "start", "--head", "--node-ip-address=127.0.0.1",
                    "--dashboard-host=127.0.0.1", "--num-cpus=2", "--disable-usage-stats",
                    f"--port={port}", f"--dashboard-port={dashboard_port}",
                    f"--dashboard-agent-listen-port={agent_port}",
                    f"--ray-client-server-port={client_port}",
                    "--min-worker-port=0", "--max-worker-port=0",
                    f"--object-store-memory={200 * 2**20}", f"--temp-dir={folder}/r",
                ],
                env={**env, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )  # fmt: skip
        started = Head(session=starting.pid, client_env=client_env)
        try:
            assert starting.wait(timeout=180) == 0, log.read_text()
            yield started
        finally:
            end(started)


def listening_addresses(pids: set[int]) -> set[str]:
    """Addresses, as the kernel writes them, on which processes wait for TCP connections."""
    inodes = set()
    for pid in pids:
        try:
            inodes |= {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()}
        except OSError:  # it has ended
            continue
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        if (file := Path("/proc/net") / table).exists()
        for line in file.read_text().splitlines()[1:]
    ]
    return {
        row[1].split(":")[0] for row in rows if row[3] == LISTENS and f"socket:[{row[9]}]" in inodes
    }


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def summary_in(log: str) -> dict[str, Any]:
    found = re.search(r"^\{$.*?^\}$", log, re.MULTILINE | re.DOTALL)
    assert found, log
    return dict(json.loads(found.group()))


def test_a_submitted_job_scores_an_archive_once_and_on_loopback_only(
    head: Head, tmp_path: Path
) -> None:
    for i in range(2):
        write_clip(tmp_path / "footage" / f"clip{i}.mp4", seed=i)
    member = make_member(tmp_path / "member", seed=0, input_px=64)
    write_ensemble([(member, 1.0)], tmp_path / "ensemble")
    out = tmp_path / "out"
    command = (
        "python", "jobs/score_archive.py", tmp_path / "footage",
        "--ensemble", tmp_path / "ensemble", "--out", out, "--json",
    )  # fmt: skip

    submit = ("job", "submit", "--working-dir=.")
    _, listening = head.ray(*submit, "--submission-id=first", "--", *command)
    first = summary_in(head.ray("job", "logs", "first")[0])
    assert listening
    assert listening <= LOOPBACK
    assert (first["score"]["num_clips_scored"], first["score"]["num_ok"]) == (2, 2)
    outcomes = ScoreStore.open(str(out / "scores")).outcomes().to_pylist()
    assert sorted((o["clip_id"], o["status"]) for o in outcomes) == [
        ("clip0", "ok"),
        ("clip1", "ok"),
    ]
    run = (out / "run" / "run.trec").read_bytes()
    assert len(run.splitlines()) == 3 * 2

    head.ray(*submit, "--submission-id=again", "--", *command)
    again = summary_in(head.ray("job", "logs", "again")[0])
    assert again["score"]["num_pairs_present"] == 2
    assert (again["score"]["num_clips_scored"], again["score"]["num_frames"]) == (0, 0)
    assert len(ScoreStore.open(str(out / "scores")).outcomes()) == 2
    assert (out / "run" / "run.trec").read_bytes() == run


def test_a_client_without_the_token_is_refused(head: Head) -> None:
    done = subprocess.run(
        [BIN / "ray", "job", "list"],
        env={**head.client_env, "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    assert "Missing authentication token" in done.stderr


def test_a_mistake_ends_the_job_with_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "jobs/score_archive.py",
            tmp_path,
            "-e",
            tmp_path / "none",
            "-o",
            tmp_path,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"score_archive: error: {tmp_path / 'none'} is no ensemble bundle: ensemble.yaml is missing"
    ]
