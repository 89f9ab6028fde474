"""The decoder's process: hangs, crashes, a parent that dies, a consumer that leaves."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numbered_clips import numbers, write_clip

from dsdi_ray.errors import ResourceError
from dsdi_ray.vision.decode import ClipSource, DecodeOutcome, DecodeSettings
from dsdi_ray.vision.decode_process import DecodeProcess

SETTINGS = DecodeSettings(chunk_frames=5, progress_timeout_seconds=2.0)
SIDE_PX = 448  # chunks larger than the pipe: the child cannot run to the clip's end by itself


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "a.mp4", num_pictures=75)


def decode(process: DecodeProcess, clip: Path, *, hurt: int | None = None):
    """Decode; send the child a signal after the first chunk."""
    chunks = []
    for part in process.decode(ClipSource(uri=str(clip)), [SIDE_PX]):
        if isinstance(part, DecodeOutcome):
            return chunks, part
        chunks.append(part)
        if hurt is not None and part.chunk_index == 0:
            os.kill(process.pid, hurt)
    raise AssertionError("no outcome")


def test_clip_after_clip_in_one_child(clip, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"x" * 1000)
    with DecodeProcess(SETTINGS) as process:
        _, first = decode(process, clip)
        child = process.pid
        _, bad = decode(process, tmp_path / "bad.mp4")
        _, again = decode(process, clip)
        assert process.pid == child
    assert [first.status, bad.status, again.status] == ["ok", "failed", "ok"]


def test_chunks_arrive_whole_and_writable(clip):
    with DecodeProcess(SETTINGS) as process:
        chunks, outcome = decode(process, clip)
    assert numbers(chunks, SIDE_PX) == {k: k * 25 // 10 for k in range(30)}
    assert outcome == DecodeOutcome(
        status="ok",
        decoder="decord",
        frames_expected=30,
        frames_scored=30,
        attempts=1,
        seconds=outcome.seconds,
    )
    assert chunks[0].pixels[SIDE_PX].dtype == np.uint8
    assert chunks[0].times_seconds.tolist() == [0.0, 0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize(
    ("hurt", "reason"),
    [
        (signal.SIGKILL, "the first attempt crashed (Killed)"),
        (signal.SIGSEGV, "the first attempt crashed (Segmentation fault)"),
        (signal.SIGSTOP, "the first attempt made no progress for 2 s and was killed"),
    ],
)
def test_a_child_hurt_in_the_middle_is_replaced_and_no_frame_comes_twice(clip, hurt, reason):
    with DecodeProcess(SETTINGS) as process:
        chunks, outcome = decode(process, clip, hurt=hurt)
        assert decode(process, clip)[1].status == "ok"
    assert [c.chunk_index for c in chunks] == list(range(6))
    assert numbers(chunks, SIDE_PX) == {k: k * 25 // 10 for k in range(30)}
    assert (outcome.status, outcome.frames_scored) == ("ok", 30)
    assert (outcome.decoder, outcome.attempts) == ("decord+pyav", 2)
    assert reason in outcome.note


def test_a_child_killed_once_from_outside_spoils_nothing(clip):
    """As when the kernel runs out of memory: the second child's pictures are the first one's."""
    with DecodeProcess(SETTINGS) as process:
        undisturbed, _ = decode(process, clip)
        chunks, outcome = decode(process, clip, hurt=signal.SIGKILL)
    assert (outcome.status, outcome.error, outcome.is_transient) == ("ok", None, False)
    for ours, theirs in zip(chunks, undisturbed, strict=True):
        np.testing.assert_array_equal(ours.pixels[SIDE_PX], theirs.pixels[SIDE_PX])
        np.testing.assert_array_equal(ours.frame_indices, theirs.frame_indices)


def test_a_clip_that_kills_two_children_is_partial_with_the_reason(clip):
    with DecodeProcess(SETTINGS) as process:
        parts = []
        for part in process.decode(ClipSource(uri=str(clip)), [SIDE_PX]):
            parts.append(part)
            if not isinstance(part, DecodeOutcome):
                os.kill(process.pid, signal.SIGKILL)
        assert decode(process, clip)[1].status == "ok"
    outcome = parts[-1]
    assert (outcome.status, outcome.attempts, outcome.frames_scored) == ("partial", 2, 10)
    assert outcome.error == "the decoder crashed (Killed)"
    assert "the first attempt crashed (Killed)" in outcome.note


def test_a_clip_that_kills_two_children_before_a_frame_is_failed_with_the_reason(clip):
    with DecodeProcess(SETTINGS) as process:
        start = process._pipe._start

        def start_and_kill() -> None:
            start()
            os.kill(process.pid, signal.SIGKILL)

        process._pipe._start = start_and_kill
        chunks, outcome = decode(process, clip)
    assert (chunks, outcome.status, outcome.attempts) == ([], "failed", 2)
    assert outcome.error in {
        "the decoder crashed (Killed)",
        "the decoder process died before the clip",
    }


def test_a_slow_source_that_makes_progress_is_not_killed(clip):
    """All in all longer than the deadline, which holds between two signs of progress."""
    settings = DecodeSettings(chunk_frames=2, progress_timeout_seconds=3.0)
    with DecodeProcess(settings) as process:
        started = time.monotonic()
        for part in process.decode(ClipSource(uri=str(clip)), [SIDE_PX]):
            os.kill(process.pid, signal.SIGSTOP)
            threading.Timer(0.4, os.kill, (process.pid, signal.SIGCONT)).start()
            outcome = part
        assert time.monotonic() - started > settings.progress_timeout_seconds
        time.sleep(0.5)
    assert (outcome.status, outcome.attempts, outcome.decoder) == ("ok", 1, "decord")


def test_what_hangs_both_times_is_partial_and_the_next_clip_decodes(clip):
    settings = DecodeSettings(chunk_frames=5, progress_timeout_seconds=1.0)
    with DecodeProcess(settings) as process:
        parts = []
        for part in process.decode(ClipSource(uri=str(clip)), [SIDE_PX]):
            parts.append(part)
            if not isinstance(part, DecodeOutcome):
                os.kill(process.pid, signal.SIGSTOP)
        assert decode(process, clip)[1].status == "ok"
    *chunks, outcome = parts
    assert [c.chunk_index for c in chunks] == [0, 1]
    assert (outcome.status, outcome.attempts) == ("partial", 2)
    assert (outcome.frames_scored, outcome.frames_expected) == (10, 30)
    assert outcome.error == "the decoder made no progress for 1 s and was killed"


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with DecodeProcess(SETTINGS) as process:
        _, outcome = decode(process, tmp_path / "pipe.mp4")
        probed = process.probe(str(tmp_path / "pipe.mp4"), "video")
    assert outcome.error == probed["probe_error"] == "not a regular file"


def test_a_slow_consumer_is_no_hang(clip):
    with DecodeProcess(DecodeSettings(chunk_frames=5, progress_timeout_seconds=0.5)) as process:
        parts = process.decode(ClipSource(uri=str(clip)), [SIDE_PX])
        outcome = None
        for part in parts:
            time.sleep(0.7)
            outcome = part
    assert isinstance(outcome, DecodeOutcome)
    assert (outcome.status, outcome.attempts) == ("ok", 1)


def test_a_consumer_that_leaves_does_not_spoil_the_next_clip(clip):
    with DecodeProcess(SETTINGS) as process:
        parts = process.decode(ClipSource(uri=str(clip)), [SIDE_PX])
        next(parts)
        parts.close()
        chunks, outcome = decode(process, clip)
    assert len(chunks) == 6
    assert outcome.status == "ok"


def test_the_child_dies_with_its_parent(clip):
    program = textwrap.dedent(
        """
        import sys, time
        from dsdi_ray.vision.decode import ClipSource, DecodeSettings
        from dsdi_ray.vision.decode_process import DecodeProcess
        process = DecodeProcess(DecodeSettings(chunk_frames=5))
        parts = process.decode(ClipSource(uri=sys.argv[1]), [448])
        next(parts)
        print(process.pid, flush=True)
        time.sleep(600)
        """
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(clip)], stdout=subprocess.PIPE, text=True
    )
    child = int(parent.stdout.readline())
    assert Path(f"/proc/{child}").exists()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while _is_running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_running(child)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_a_child_that_cannot_start_is_no_clips_fault(clip, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    process = DecodeProcess(SETTINGS)
    with pytest.raises(ResourceError, match="the decode process does not start"):
        decode(process, clip)


def test_nothing_is_printed_for_a_damaged_clip(clip):
    data = bytearray(clip.read_bytes())
    data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    clip.write_bytes(data)
    program = (
        "import sys\n"
        "from dsdi_ray.vision.decode import ClipSource, DecodeSettings\n"
        "from dsdi_ray.vision.decode_process import DecodeProcess\n"
        "with DecodeProcess(DecodeSettings()) as process:\n"
        "    assert list(process.decode(ClipSource(uri=sys.argv[1]), [64]))[-1].status == 'partial'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(clip)], capture_output=True, text=True, check=True
    )
    assert done.stdout == done.stderr == ""
