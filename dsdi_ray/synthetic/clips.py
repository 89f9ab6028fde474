"""Synthetic clips: a camera flies over a map while vehicles move, and every frame knows its classes."""

import math
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from dsdi_ray.synthetic.camera import Camera, Pose, map_size
from dsdi_ray.synthetic.canvas import Canvas
from dsdi_ray.synthetic.materials import class_fractions, visible_features
from dsdi_ray.synthetic.movers import draw_movers, restore, sample_movers
from dsdi_ray.synthetic.plans import ScenePlan, sample_plan
from dsdi_ray.synthetic.scenes import paint_map, sample_pose
from dsdi_ray.synthetic.textures import Size
from dsdi_ray.synthetic.vehicles import Mover

TRUTH_FPS = 10
_FRAME_RATES = (
    (Fraction(24), 0.16), (Fraction(25), 0.16), (Fraction(30000, 1001), 0.28), (Fraction(30), 0.22),
    (Fraction(50), 0.08), (Fraction(60), 0.10),
)  # fmt: skip
_LARGEST_MAP_PX = 1.2e6


@dataclass(frozen=True)
class Flight:
    """A clip that is ready to be filmed.

    Attributes:
        plan: What the place holds.
        fps: Frames per second, exact.
        num_frames: Frames in the clip.
        size: Width and height of the frames, pixels.
        poses: One view of the map per frame.
        camera: The camera.
        canvas: The map.
        movers: The vehicles that move.
    """

    plan: ScenePlan
    fps: Fraction
    num_frames: int
    size: Size
    poses: list[Pose]
    camera: Camera
    canvas: Canvas
    movers: list[Mover]

    @property
    def duration_seconds(self) -> float:
        return float(self.num_frames / self.fps)

    def sampled_frames(self) -> list[int]:
        """The frame on screen at each tenth of a second."""
        num_points = math.ceil(self.num_frames * TRUTH_FPS / self.fps)
        return [int(k * self.fps / TRUTH_FPS) for k in range(num_points)]


@dataclass(frozen=True, kw_only=True)
class FilmedClip:
    """What a clip truly shows.

    Attributes:
        fps: Frames per second, exact.
        num_frames: Frames in the file.
        frames: Part of the picture that each class fills, at each tenth of a second.
    """

    fps: Fraction
    num_frames: int
    frames: list[dict[str, float]]


def plan_flight(rng: np.random.Generator, size: Size, seconds: tuple[float, float]) -> Flight:
    """Sample a place and a flight over it, and paint its map."""
    plan = sample_plan(rng)
    rates = [rate for rate, _ in _FRAME_RATES]
    fps = rates[int(rng.choice(len(rates), p=[share for _, share in _FRAME_RATES]))]
    length = seconds[0] + (seconds[1] - seconds[0]) * float(rng.beta(1.1, 4.0))
    num_frames = max(1, round(length * fps))
    camera = Camera(rng, plan, size)
    poses, map_px = _fly(rng, plan, camera.ground_size, num_frames)
    canvas = paint_map(rng, plan, map_px, pixels_per_metre=min(size) / plan.view_metres)
    movers = sample_movers(canvas, seconds=num_frames / float(fps))
    if rng.random() < 0.75:
        poses = _towards_more(camera, canvas, poses)
    return Flight(plan, fps, num_frames, size, poses, camera, canvas, movers)


def film(flight: Flight, path: Path) -> FilmedClip:
    """Film a flight as H.264 in MP4, and note what each sampled frame shows."""
    sampled = flight.sampled_frames()
    wanted, by_frame = set(sampled), dict[int, dict[str, float]]()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=flight.fps)
        stream.width, stream.height = flight.size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = 48
        stream.options = _encoder_options()
        for index, picture, materials in _shoot(flight, wanted):
            if materials is not None:
                by_frame[index] = class_fractions(materials)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture))))
        container.mux(stream.encode())
    return FilmedClip(
        fps=flight.fps, num_frames=flight.num_frames, frames=[by_frame[i] for i in sampled]
    )


def _encoder_options() -> dict[str, object]:
    """Settings with which the same frames give the same bytes.

    That takes one thread and instructions that every x86-64 has: x264's code for AVX-512 gives
    other bytes than its code for older machines, and on one virtual machine gave other bytes in
    about one run of twenty. The speed is the same (measured at 160x96).
    """
    options: dict[str, object] = {"preset": "veryfast", "crf": "25", "threads": "1"}
    if platform.machine().lower() in ("x86_64", "amd64"):
        options["x264-params"] = "asm=MMX2,SSE2Fast,SSSE3,SSE4.2"
    return options


def _shoot(
    flight: Flight, wanted: set[int]
) -> Iterator[tuple[int, Image.Image, Image.Image | None]]:
    canvas, camera = flight.canvas, flight.camera
    for index, pose in enumerate(flight.poses):
        covered = draw_movers(canvas, flight.movers, float(index / flight.fps))
        picture = camera.see(canvas.rgb, pose)
        materials = camera.see_materials(canvas.materials, pose) if index in wanted else None
        restore(canvas, covered)
        yield index, picture, materials


def _towards_more(camera: Camera, canvas: Canvas, poses: list[Pose]) -> list[Pose]:
    """Turn a flight round if there is more to see at its start than at its end."""
    first, last = (
        visible_features(class_fractions(camera.see_materials(canvas.materials, pose)))
        for pose in (poses[0], poses[-1])
    )
    return poses[::-1] if len(first) > len(last) else poses


def _fly(
    rng: np.random.Generator, plan: ScenePlan, ground_size: Size, num_frames: int
) -> tuple[list[Pose], Size]:
    """Poses of a smooth flight, moved so that their map begins at (0, 0), and the map's size."""
    first = sample_pose(rng, plan)
    course = float(rng.uniform(0, 2 * math.pi))
    travel = max(ground_size) * float(rng.uniform(0.5, 1.5))
    turn, zoom = float(rng.normal(0, 0.09)), float(rng.uniform(-0.15, 0.15))
    sway, phase = float(rng.uniform(0, 3)), rng.uniform(0, 6.28, 3)
    part = np.linspace(0, 1, num_frames)
    eased = part + 0.12 * np.sin(2 * math.pi * part + phase[0]) / (2 * math.pi)
    while True:
        poses = [
            Pose(
                x=math.cos(course) * travel * e + sway * math.sin(9 * p + phase[1]),
                y=math.sin(course) * travel * e + sway * math.sin(7 * p + phase[2]),
                scale=1 + zoom * (p - 0.5),
                angle=first.angle + turn * p,
                tilt=first.tilt,
            )
            for p, e in zip(part.tolist(), eased.tolist(), strict=True)
        ]
        size, dx, dy = map_size(poses, ground_size)
        if size[0] * size[1] <= _LARGEST_MAP_PX or travel < 1:
            break
        travel *= 0.85
    moved = [Pose(x=p.x + dx, y=p.y + dy, scale=p.scale, angle=p.angle, tilt=p.tilt) for p in poses]
    return moved, size
