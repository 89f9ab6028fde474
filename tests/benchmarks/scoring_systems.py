"""Five ways to turn clips into one score per class: this project's, and what one would write else.

Each takes clips, a member bundle and a scratch folder, and returns the seconds that the work took
(imports are done, Ray runs) and the largest probability per clip and class.
"""

import multiprocessing
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from dsdi_ray.distributed.members import import_member, load_member
from dsdi_ray.storage.bundles import read_member_spec
from dsdi_ray.taxonomy import load_taxonomy
from dsdi_ray.vision.member import Member

_FPS = 10
_MICRO_BATCH = 32
Scores = dict[str, list[float]]
System = Callable[[list[Path], Path, Path], tuple[float, Scores]]


def make_random_member(out: Path, backbone: str, input_px: int) -> Path:
    """A member with random weights."""
    torch.manual_seed(0)
    network = timm.create_model(backbone, num_classes=37)
    weights = out.with_suffix(".safetensors")
    save_file(network.state_dict(), weights)
    taxonomy = load_taxonomy("ladi_v1")
    import_member(
        backbone=backbone, weights_file=weights, taxonomy=taxonomy, input_px=input_px, out=out
    )
    return out


def dsdi(clips: list[Path], member: Path, work: Path) -> tuple[float, Scores]:
    """This project: score into a store, then rank for the maxima (the ranking is not timed)."""
    from dsdi_ray.distributed.index import index_archive, load_archive
    from dsdi_ray.distributed.rank import rank_archive
    from dsdi_ray.distributed.score import score_archive
    from dsdi_ray.distributed.session import ray_session
    from dsdi_ray.storage.bundles import read_ensemble, write_ensemble
    from dsdi_ray.vision.decode import DecodeSettings

    write_ensemble([(member, 1.0)], work / "ensemble")
    ensemble, settings = read_ensemble(work / "ensemble"), DecodeSettings(fps=_FPS)
    with ray_session():
        index_archive([str(clip) for clip in clips], out=work / "manifest.parquet")
        manifest = load_archive(str(work / "manifest.parquet"))
        started = time.monotonic()
        score_archive(
            manifest, ensemble=ensemble, store_uri=str(work / "scores"), settings=settings
        )
        seconds = time.monotonic() - started
        run = rank_archive(
            str(work / "scores"), ensemble=ensemble, decode_id=settings.decode_id
        ).run
    scores: Scores = {clip.stem: [0.0] * 37 for clip in clips}
    index_of = {name: i for i, name in enumerate(ensemble.taxonomy.class_names)}
    for row in run.to_pylist():
        scores[row["clip_id"]][index_of[row["feature"]]] = row["score"]
    return seconds, scores


def loop(clips: list[Path], member: Path, work: Path) -> tuple[float, Scores]:
    """By hand: one process decodes with decord, this one scores."""
    network, side = load_member(member), read_member_spec(member).input_px
    context = multiprocessing.get_context("spawn")
    queue: Any = context.Queue(maxsize=4)
    started = time.monotonic()
    decoder = context.Process(target=_decode_with_decord, args=(clips, side, queue))
    decoder.start()
    maxima: dict[str, NDArray[np.float32]] = {}
    while (item := queue.get()) is not None:
        _keep_maxima(maxima, *item, network)
    decoder.join()
    return time.monotonic() - started, _probabilities(maxima)


def _decode_with_decord(clips: list[Path], side: int, queue: Any) -> None:
    import decord

    for clip in clips:
        # swscale converts and resizes in one pass inside decord: its cheapest way.
        reader = decord.VideoReader(str(clip), num_threads=1, width=side, height=side)
        step = reader.get_avg_fps() / _FPS
        indices = [int(k * step) for k in range(int(len(reader) / step))]
        for i in range(0, len(indices), 64):
            queue.put((clip.stem, reader.get_batch(indices[i : i + 64]).asnumpy()))
    queue.put(None)


def paper(clips: list[Path], member: Path, work: Path) -> tuple[float, Scores]:
    """The paper's way (section 2.5): ffmpeg -r 10 to JPEG files, then a DataLoader."""
    network, side = load_member(member), read_member_spec(member).input_px
    started = time.monotonic()
    for clip in clips:
        folder = work / "frames" / clip.stem
        folder.mkdir(parents=True)
        command = ["ffmpeg", "-loglevel", "error", "-i", str(clip), "-r", str(_FPS), "-q:v", "2"]
        subprocess.run([*command, str(folder / "%06d.jpg")], check=True)
    files = sorted((work / "frames").rglob("*.jpg"))
    loader = torch.utils.data.DataLoader(
        _Frames(files, side), batch_size=_MICRO_BATCH, num_workers=os.cpu_count() or 1
    )
    maxima: dict[str, NDArray[np.float32]] = {}
    for names, frames in loader:
        logits = network.logits(frames.numpy(), micro_batch=_MICRO_BATCH)
        for name, row in zip(names, logits, strict=True):
            maxima[name] = np.maximum(maxima.get(name, row), row)
    return time.monotonic() - started, _probabilities(maxima)


class _Frames(torch.utils.data.Dataset[tuple[str, NDArray[np.uint8]]]):
    def __init__(self, files: list[Path], side: int) -> None:
        self._files, self._side = files, side

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, i: int) -> tuple[str, NDArray[np.uint8]]:
        with Image.open(self._files[i]) as image:
            resized = image.convert("RGB").resize((self._side,) * 2, Image.Resampling.BILINEAR)
            return self._files[i].parent.name, np.array(resized)


def read_videos(clips: list[Path], member: Path, work: Path) -> tuple[float, Scores]:
    """ray.data.read_videos at 10 fps, resized in the reader, then an actor with the network."""
    import ray

    from dsdi_ray.distributed.session import ray_session

    side = read_member_spec(member).input_px
    with ray_session():
        ray.data.DataContext.get_current().enable_progress_bars = False
        started = time.monotonic()
        frames = ray.data.read_videos(
            [str(clip) for clip in clips],
            include_paths=True,
            fps=_FPS,
            resize=(side, side),
            num_cpus=0.75,
        )
        scored = frames.map_batches(
            _ScoreBatch,
            fn_constructor_args=(member,),
            batch_size=_MICRO_BATCH,
            compute=ray.data.ActorPoolStrategy(size=1),
            num_cpus=0.5,
        )
        maxima: dict[str, NDArray[np.float32]] = {}
        for batch in scored.iter_batches(batch_size=None, batch_format="numpy"):
            _merge_maxima(maxima, batch)
        seconds = time.monotonic() - started
    return seconds, _probabilities(maxima)


class _ScoreBatch:
    def __init__(self, member: Path) -> None:
        torch.set_num_threads(os.cpu_count() or 1)
        self._network = load_member(member)

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {"path": batch["path"], "logits": self._network.logits(batch["frame"])}


def daft(clips: list[Path], member: Path, work: Path) -> tuple[float, Scores]:
    """Daft's video reader, every third frame, and the network in this process."""
    import daft as df

    network, side = load_member(member), read_member_spec(member).input_px
    step = 30 // _FPS  # the clips have 30 fps; the reader itself samples nothing
    started = time.monotonic()
    frames = df.read_video_frames(
        [str(clip) for clip in clips], image_height=side, image_width=side
    ).where(df.col("frame_index") % step == 0)
    maxima: dict[str, NDArray[np.float32]] = {}
    for part in frames.select("path", "data").iter_partitions():
        columns = part.to_pydict()
        for i in range(0, len(columns["path"]), _MICRO_BATCH):
            images = np.stack(columns["data"][i : i + _MICRO_BATCH])
            logits = network.logits(images)
            paths = np.array(columns["path"][i : i + _MICRO_BATCH])
            _merge_maxima(maxima, {"path": paths, "logits": logits})
    return time.monotonic() - started, _probabilities(maxima)


def _keep_maxima(
    maxima: dict[str, NDArray[np.float32]], name: str, frames: NDArray[np.uint8], network: Member
) -> None:
    peak = network.logits(frames, micro_batch=_MICRO_BATCH).max(axis=0)
    maxima[name] = np.maximum(maxima.get(name, peak), peak)


def _merge_maxima(
    maxima: dict[str, NDArray[np.float32]], batch: Mapping[str, NDArray[Any]]
) -> None:
    for path, logits in _by_path(batch):
        peak = logits.max(axis=0)
        maxima[Path(path).stem] = np.maximum(maxima.get(Path(path).stem, peak), peak)


def _by_path(batch: Mapping[str, NDArray[Any]]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for path in np.unique(batch["path"].astype(str)):
        yield path, batch["logits"][batch["path"].astype(str) == path]


def _probabilities(maxima: Mapping[str, NDArray[np.float32]]) -> Scores:
    features = np.array([not c.is_none for c in load_taxonomy("ladi_v1").classes])
    return {
        name: np.where(features, 1 / (1 + np.exp(-logits.astype(np.float64))), 0).tolist()
        for name, logits in maxima.items()
    }


SYSTEMS: Mapping[str, System] = {
    "dsdi": dsdi,
    "loop": loop,
    "paper": paper,
    "read_videos": read_videos,
    "daft": daft,
}
