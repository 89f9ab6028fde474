"""Write a synthetic archive: pictures with crowd answers, clips, and what is truly in them."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from PIL import Image

from dsdi_ray.errors import DataError
from dsdi_ray.synthetic.annotators import ask_crowd, hire_workers
from dsdi_ray.synthetic.clips import TRUTH_FPS, FilmedClip, film, plan_flight
from dsdi_ray.synthetic.materials import (
    MIN_FRACTION,
    peak_fractions,
    scene_taxonomy,
    visible_features,
    with_none_classes,
)
from dsdi_ray.synthetic.plans import sample_plan
from dsdi_ray.synthetic.scenes import render_still
from dsdi_ray.synthetic.textures import Size

Progress = Callable[[str, int, int], None]
T = TypeVar("T")
_URL = "https://synthetic.invalid/Images/SYNTHETIC/{flight:04d}/{name}"
_IMAGES_PER_FLIGHT = 20
_CLIPS_PER_VIDEO = 20
_SMALLEST_SIDE_PX = 32
# Streams of randomness below the seed.
_CROWD, _IMAGES, _CLIPS = 0, 1, 2


class OrderedMap(Protocol):
    """Calls a function on each number, here or elsewhere; results come in the numbers' order."""

    def __call__(self, work: Callable[[int], T], numbers: Iterable[int], /) -> Iterable[T]: ...


@dataclass(frozen=True, kw_only=True)
class SyntheticArchive:
    """Where the parts of a synthetic archive lie.

    Attributes:
        root: The archive's folder; it also holds ``truth.json``.
        images_dir: Labelled pictures, JPEG.
        answers_tsv: Crowd answers in LADI v1's form: ``url  WorkerId  Answer``.
        clips_dir: Clips, H.264 in MP4.
        qrels: Which clip shows which feature, in TREC's form.
        num_images: Number of pictures.
        num_clips: Number of clips.
    """

    root: Path
    images_dir: Path
    answers_tsv: Path
    clips_dir: Path
    qrels: Path
    num_images: int
    num_clips: int


def write_synthetic_archive(
    root: Path,
    *,
    num_images: int,
    num_clips: int,
    seed: int = 0,
    image_size: Size = (400, 300),
    clip_size: Size = (384, 216),
    clip_seconds: tuple[float, float] = (3.0, 10.0),
    run: OrderedMap = map,
    on_progress: Progress | None = None,
) -> SyntheticArchive:
    """Render a synthetic archive; the same arguments give the same labels and pixels.

    A clip is relevant to a feature if the feature's visible part of the picture reaches its
    threshold in at least one of the frames on screen at 0, 0.1, 0.2 ... seconds. All clips are
    judged for every feature that occurs in one of them.

    Args:
        root: Folder to write to; made if missing.
        num_images: Labelled pictures to render.
        num_clips: Clips to render.
        seed: Another seed, another archive.
        image_size: Width and height of the pictures, pixels.
        clip_size: Width and height of the clips, pixels, even.
        clip_seconds: Shortest and longest clip; short ones are more common.
        run: Renders the pictures and clips, each independent of the others; its workers must see
            ``root``.
        on_progress: Called as ``(what, done, total)`` after each picture ("images") and clip
            ("clips").

    Raises:
        DataError: If a number is out of range or ``root`` is not a folder that can be written.
    """
    _check(root, num_images, num_clips, image_size, clip_size, clip_seconds, seed)
    report = on_progress or (lambda _what, _done, _total: None)
    archive = SyntheticArchive(
        root=root,
        images_dir=root / "images",
        answers_tsv=root / "answers.tsv",
        clips_dir=root / "clips",
        qrels=root / "qrels.txt",
        num_images=num_images,
        num_clips=num_clips,
    )
    try:
        archive.images_dir.mkdir(parents=True, exist_ok=True)
        archive.clips_dir.mkdir(exist_ok=True)
    except OSError as error:
        raise DataError(f"{root}: cannot write a synthetic archive there: {error}") from error
    film_one = partial(
        _film_clip, folder=archive.clips_dir, seed=seed, size=clip_size, seconds=clip_seconds
    )
    render_one = partial(_render_image, folder=archive.images_dir, seed=seed, size=image_size)
    clips = _counted(run(film_one, range(num_clips)), "clips", num_clips, report)
    images = _counted(run(render_one, range(num_images)), "images", num_images, report)
    _write_answers(archive.answers_tsv, [image.answers for image in images])
    _write_qrels(archive.qrels, {clip.clip_id: clip.features for clip in clips})
    truth = {
        "seed": seed,
        "taxonomy": scene_taxonomy().taxonomy_id,
        "frames_per_second": TRUTH_FPS,
        "thresholds": dict(MIN_FRACTION),
        "images": {image.name: image.truth for image in images},
        "clips": {clip.clip_id: clip.truth for clip in clips},
    }
    (root / "truth.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
    return archive


@dataclass(frozen=True)
class _Image:
    name: str
    answers: Sequence[str]  # lines of the answers' file
    truth: Mapping[str, Any]


@dataclass(frozen=True)
class _Clip:
    clip_id: str
    features: frozenset[str]
    truth: Mapping[str, Any]


def _render_image(i: int, *, folder: Path, seed: int, size: Size) -> _Image:
    name = f"SYN_{i + 1:05d}.jpg"
    rng = np.random.default_rng([seed, _IMAGES, i])
    image, fractions = render_still(rng, size, sample_plan(rng))
    Image.fromarray(image).save(folder / name, quality=88)
    url = _URL.format(flight=i // _IMAGES_PER_FLIGHT + 1, name=name)
    workers = hire_workers(np.random.default_rng([seed, _CROWD]))
    answers = [f"{url}\t{who}\t{said!r}\n" for who, said in ask_crowd(rng, workers, fractions)]
    truth = {
        "classes": _in_order(with_none_classes(visible_features(fractions))),
        "fractions": _rounded(fractions),
    }
    return _Image(name, answers, truth)


def _film_clip(
    i: int, *, folder: Path, seed: int, size: Size, seconds: tuple[float, float]
) -> _Clip:
    clip_id = f"Shot{i // _CLIPS_PER_VIDEO + 1}_{i % _CLIPS_PER_VIDEO + 1:03d}"
    flight = plan_flight(np.random.default_rng([seed, _CLIPS, i]), size, seconds)
    clip = film(flight, folder / f"{clip_id}.mp4")
    return _Clip(clip_id, visible_features(peak_fractions(clip.frames)), _clip_truth(clip))


def _counted(results: Iterable[T], what: str, total: int, report: Progress) -> list[T]:
    done: list[T] = []
    for result in results:
        done.append(result)
        report(what, len(done), total)
    return done


def _write_answers(path: Path, answers: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write("url\tWorkerId\tAnswer\n")
        for lines in answers:
            file.writelines(lines)


def _clip_truth(clip: FilmedClip) -> dict[str, Any]:
    peaks = peak_fractions(clip.frames)
    features = visible_features(peaks)
    first_seen = {
        name: next(
            k / TRUTH_FPS for k, parts in enumerate(clip.frames) if name in visible_features(parts)
        )
        for name in _in_order(features)
    }
    return {
        "fps": str(clip.fps),
        "num_frames": clip.num_frames,
        "duration_seconds": float(clip.num_frames / clip.fps),
        "features": _in_order(features),
        "classes": _in_order(with_none_classes(features)),
        "first_visible_seconds": first_seen,
        "peak_fractions": _rounded(peaks),
    }


def _write_qrels(path: Path, features_by_clip: Mapping[str, frozenset[str]]) -> None:
    occurring = frozenset[str]().union(*features_by_clip.values())
    lines = [
        f"{c.feature_id} 0 {clip_id} {int(c.name in features)}\n"
        for c in scene_taxonomy().features
        if c.name in occurring
        for clip_id, features in features_by_clip.items()
    ]
    path.write_text("".join(lines), encoding="utf-8")


def _in_order(names: frozenset[str]) -> list[str]:
    return [name for name in scene_taxonomy().class_names if name in names]


def _rounded(fractions: Mapping[str, float]) -> dict[str, float]:
    return {name: round(fractions[name], 6) for name in _in_order(frozenset(fractions))}


def _check(
    root: Path,
    num_images: int,
    num_clips: int,
    image_size: Size,
    clip_size: Size,
    clip_seconds: tuple[float, float],
    seed: int,
) -> None:
    for name, number in (("num_images", num_images), ("num_clips", num_clips), ("seed", seed)):
        if number < 0:
            raise DataError(f"{root}: {name} must be at least 0, got {number}")
    for name, size in (("image_size", image_size), ("clip_size", clip_size)):
        if min(size) < _SMALLEST_SIDE_PX:
            raise DataError(
                f"{root}: {name} must be at least {_SMALLEST_SIDE_PX} px a side, got {size}"
            )
    if any(side % 2 for side in clip_size):
        raise DataError(f"{root}: clip_size must be even (H.264, 4:2:0), got {clip_size}")
    if not 0 < clip_seconds[0] <= clip_seconds[1]:
        raise DataError(f"{root}: clip_seconds must be (shortest, longest) > 0, got {clip_seconds}")
