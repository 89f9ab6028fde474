"""CPU time per sampled frame of each way to decode, against a bare FFmpeg decode of the clip.

Renders 1080p30 clips as x264 and x265 encode them by default, or takes ``--clip FILE...``. Every
way runs in processes of its own, one thread each, in turns; ratios are taken within a turn, since a
machine's clock may drift by more than the ways differ, and the medians of the turns are shown.
All but ``ffmpeg`` read the timeline and resize the sampled pictures to a square of RGB, in a process
that has decoded the clip before, as one that works through an archive; ``ffmpeg`` is a command, whose
start is part of its time. ``clip reader`` is what scoring runs: it picks a decoder and assembles chunks.

    python tests/benchmarks/bench_decode.py
"""

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dsdi_ray.vision.child_pipe import child_environment
from dsdi_ray.vision.clip_reader import ClipReader
from dsdi_ray.vision.decode import ClipSource, DecodeOutcome, DecodeSettings
from dsdi_ray.vision.decord_reader import DecordReader
from dsdi_ray.vision.packet_decoding import decoded_frames
from dsdi_ray.vision.pyav_reader import PyavReader
from dsdi_ray.vision.sampling import plan_samples
from dsdi_ray.vision.skipping_reader import SkippingReader
from dsdi_ray.vision.timeline import Timeline
from dsdi_ray.vision.timeline_reader import read_timeline
from dsdi_ray.vision.video_stream import VideoFile

READERS = {"decord": DecordReader, "pyav, full": PyavReader, "pyav, skipping": SkippingReader}
WAYS = ["ffmpeg", *READERS, "clip reader"]
SIDE_PX = 224
WIDTH, HEIGHT, FPS = 1920, 1080, 30
TARGET = 0.85  # of ffmpeg's CPU time, for the clip reader on x264's default groups of pictures


def pictures(num_pictures: int) -> Iterator[NDArray[np.uint8]]:
    """A flight over rough ground, with grain: 1080p as a drone's camera films it."""
    rng = np.random.default_rng(0)
    height, width = HEIGHT + 600, WIDTH + 1200
    ground = rng.normal(0, 14, (height // 2, width // 2, 1)).repeat(2, 0).repeat(2, 1)
    for cell_px, contrast in ((16, 20), (64, 30), (512, 60)):
        size = (height // cell_px + 2, width // cell_px + 2, 3)
        coarse = Image.fromarray(rng.integers(0, 255, size, np.uint8))
        ground = ground + np.asarray(coarse.resize((width, height))) * (contrast / 128)
    grain = [rng.normal(0, 2, (HEIGHT, WIDTH, 1)) for _ in range(4)]
    for i in range(num_pictures):
        left, top = int(600 + 500 * np.sin(i / 60)), int(300 + 250 * np.sin(i / 47))
        seen = ground[top : top + HEIGHT, left : left + WIDTH] + grain[i % 4]
        yield np.clip(seen, 0, 255).astype(np.uint8)


def write_clip(path: Path, codec: str, num_pictures: int) -> Path:
    """Encode with the codec's defaults."""
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for picture in pictures(num_pictures):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def run_way(way: str, path: str, fps: float) -> None:
    """Decode twice in this process; print the second time's CPU seconds and its result."""
    decode_by(way, path, fps)  # what is loaded, tried out and allocated once serves clip after clip
    started = cpu_seconds(resource.RUSAGE_SELF)
    num_frames, remark = decode_by(way, path, fps)
    print(cpu_seconds(resource.RUSAGE_SELF) - started, num_frames, remark, sep="\t")


def decode_by(way: str, path: str, fps: float) -> tuple[int, str]:
    """Decode a clip once; its frames, and what the outcome says of them."""
    source = ClipSource(uri=path)
    if way == "clip reader":
        for item in ClipReader(source, [SIDE_PX], DecodeSettings(fps=fps)).read():
            outcome = item  # chunks are let go of
        assert isinstance(outcome, DecodeOutcome)
        return outcome.frames_scored, f"{outcome.decoder}; {outcome.note}"
    with closing(VideoFile(path)) as video:
        timeline = whole_timeline(video)
        plan = plan_samples(timeline, source, fps=fps)
        if way == "ffmpeg":  # no binary: the same work through PyAV
            for _ in decoded_frames(*video.open(), lambda *_: None):
                pass
            return len(plan), ""
        reader = READERS[way](path if way == "decord" else video, plan, timeline, [SIDE_PX])
        return sum(sample is not None for sample in reader.read(0)), ""


def whole_timeline(video: VideoFile) -> Timeline:
    reading = read_timeline(video)
    while True:
        try:
            next(reading)
        except StopIteration as end:
            return end.value


def cpu_seconds(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def measure(way: str, path: Path, fps: float) -> tuple[float, int, str]:
    """CPU seconds, frames and a remark of one run in a new process."""
    if way == "ffmpeg" and shutil.which("ffmpeg"):
        command = ["ffmpeg", "-v", "error", "-threads", "1", "-i", str(path), "-f", "null", "-"]
        before = cpu_seconds(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        return cpu_seconds(resource.RUSAGE_CHILDREN) - before, 0, ""
    command = [sys.executable, __file__, "--way", way, "--clip", str(path), "--fps", str(fps)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=child_environment(),
    )
    if done.returncode:
        return float("nan"), 0, done.stderr.strip().splitlines()[-1]
    seconds, num_frames, remark = done.stdout.rstrip("\n").split("\t")
    return float(seconds), int(num_frames), remark


def report(path: Path, *, fps: float, num_turns: int) -> None:
    """Measure all ways on a clip and print a table."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate or 0)
        mbit = (container.bit_rate or 0) / 1e6
        print(
            f"{path.name}: {stream.codec_context.name} {stream.width}x{stream.height} at {rate:.4g} fps, {mbit:.1f} Mbit/s"
        )
    turns = [{way: measure(way, path, fps) for way in WAYS} for _ in range(num_turns)]
    num_frames = max(count for turn in turns for _, count, _ in turn.values())
    print(f"  {num_frames} frames at {fps:g} fps   CPU ms/frame    x ffmpeg (least, most)")
    for way in WAYS:
        seconds = np.median([turn[way][0] for turn in turns])
        ratios = [turn[way][0] / turn["ffmpeg"][0] for turn in turns]
        spread = f"{np.median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f})"
        print(f"  {way:24s} {seconds / num_frames * 1e3:11.2f} {spread:>22}   {turns[0][way][2]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clip", type=Path, nargs="+", help="files to measure instead of rendered")
    parser.add_argument("--fps", type=float, default=10.0, help="frames sampled per second")
    parser.add_argument("--num-pictures", type=int, default=240, help="length of rendered clips")
    parser.add_argument("--num-turns", type=int, default=7, help="medians are shown")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        run_way(options.way, str(options.clip[0]), options.fps)
        return
    if not shutil.which("ffmpeg"):
        print("no ffmpeg on the path: a bare PyAV loop stands in for it")
    with tempfile.TemporaryDirectory() as folder:
        codecs = {"x264.mp4": "libx264", "x265.mp4": "libx265"}
        clips = options.clip or [
            write_clip(Path(folder) / name, codec, options.num_pictures)
            for name, codec in codecs.items()
        ]
        for clip in clips:
            report(clip, fps=options.fps, num_turns=options.num_turns)
    print(f"goal: clip reader at most {TARGET} x ffmpeg on x264's default groups of pictures")


if __name__ == "__main__":
    main()
