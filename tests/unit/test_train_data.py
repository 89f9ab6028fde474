import errno
import fcntl
import io
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from dsdi_ray.config import Labels
from dsdi_ray.distributed import decoded_pictures
from dsdi_ray.distributed.decoded_pictures import decode_all, shared_pictures
from dsdi_ray.distributed.train_data import (
    Feeder,
    Pictures,
    epoch_batches,
    micro_batches,
)
from dsdi_ray.distributed.train_labels import encode_labels
from dsdi_ray.errors import ConfigError
from dsdi_ray.storage.prepared import vectors_column
from dsdi_ray.taxonomy import Taxonomy, TaxonomyClass

SIDE = 16


def pictures(num=12, *, cached):
    rng = np.random.default_rng(0)
    jpegs = []
    for _ in range(num):
        file = io.BytesIO()
        image = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(image).save(file, "JPEG")
        jpegs.append(file.getvalue())
    decoded = None
    if cached:
        plain = pictures(num, cached=False)
        decoded = np.concatenate([plain.batch([i]).permute(0, 2, 3, 1) for i in range(num)])
    return Pictures(
        image_ids=[f"image-{i}" for i in range(num)],
        jpegs=jpegs,
        labels=rng.random((num, 2)).astype(np.float32),
        is_asked=None,
        side_px=SIDE,
        cached=decoded,
    )


def batches(epoch=0, num_images=10, batch_size=4):
    return epoch_batches(num_images, batch_size=batch_size, seed=0, epoch=epoch)


def test_an_epoch_takes_each_image_once_at_most_and_fills_its_batches():
    drawn = batches()
    assert [len(b) for b in drawn] == [4, 4]
    assert len(set(np.concatenate(drawn))) == 8


def test_epochs_differ_and_can_be_repeated():
    assert np.array_equal(batches(epoch=3), batches(epoch=3))
    assert not np.array_equal(batches(epoch=3), batches(epoch=4))


def test_a_set_smaller_than_a_batch_is_one_batch():
    assert [sorted(b) for b in batches(num_images=3)] == [[0, 1, 2]]


@pytest.mark.parametrize(("num_workers", "accumulate"), [(1, 1), (2, 1), (1, 3), (3, 2)])
def test_workers_and_micro_batches_share_a_batch_evenly(num_workers, accumulate):
    batch = np.arange(28)
    shares = [
        micro_batches(batch, rank=rank, num_workers=num_workers, accumulate=accumulate)
        for rank in range(num_workers)
    ]
    assert [len(share) for share in shares] == [accumulate] * num_workers
    parts = [part for share in shares for part in share]
    assert np.array_equal(np.concatenate(parts), batch)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_pictures_are_the_same_from_cache_and_from_files():
    from_files, from_cache = pictures(cached=False), pictures(cached=True)
    some = np.array([3, 0, 11])
    assert torch.equal(from_files.batch(some), from_cache.batch(some))


def test_batches_are_the_same_whoever_loads_them_and_in_every_epoch():
    part = pictures(cached=False)
    here, there = Feeder(part), Feeder(part, num_processes=2)
    for epoch in range(2):
        drawn = batches(epoch=epoch)
        found = [list(feeder(drawn)) for feeder in (here, there, Feeder(pictures(cached=True)))]
        for same in zip(*found, strict=True):
            assert same[0].shape == (4, 3, SIDE, SIDE)
            assert all(torch.equal(same[0], other) for other in same[1:])


TAXONOMY = Taxonomy(
    name="two by two",
    classes=tuple(
        TaxonomyClass(name=name, category=category)
        for name, category in (("a", "x"), ("b", "x"), ("c", "y"), ("d", "y"))
    ),
)
ANSWERS = pa.table(
    {
        "soft_label": vectors_column(np.array([[1, 0.25, 0.5, 0]], np.float32), pa.float32()),
        "answer_counts": vectors_column(np.array([[4, 1, 2, 0]], np.int32), pa.int32()),
        "num_asked": vectors_column(np.array([[5, 5, 3, 0]], np.int32), pa.int32()),
    }
)


def encode(**labels):
    return encode_labels(ANSWERS, Labels(**labels), taxonomy=TAXONOMY, has_answers=True)


def test_one_prepared_set_serves_all_encodings_of_the_answers():
    paper, per_category, majority = (
        encode(encoding=name)[0].tolist() for name in ("paper", "per_category", "majority")
    )
    assert paper == [[1, 0.25, 0.5, 0]]
    assert per_category == [[1, 0.25, 1, 0]]
    assert majority == [[1, 0, 1, 0]]


def test_a_mask_tells_what_somebody_was_asked_about():
    assert encode()[1] is None
    assert encode(masked=True)[1].tolist() == [[True, True, True, False]]


def test_labels_as_given_cannot_be_encoded_otherwise():
    given, _ = encode_labels(ANSWERS, Labels(), taxonomy=TAXONOMY, has_answers=False)
    assert given.tolist() == [[1, 0.25, 0.5, 0]]
    with pytest.raises(ConfigError, match="set labels.encoding=paper to take them as they are"):
        encode_labels(ANSWERS, Labels(encoding="majority"), taxonomy=TAXONOMY, has_answers=False)


def test_pictures_that_runs_share_are_decoded_once_and_are_those_of_the_files(tmp_path):
    plain = pictures(cached=False)
    jpegs = [pa.py_buffer(jpeg) for jpeg in plain.jpegs]
    decoded = shared_pictures(tmp_path / "decoded", "set", jpegs, SIDE)
    (file,) = (tmp_path / "decoded").glob("*.npy")
    written = file.stat().st_mtime_ns
    shared = replace(plain, jpegs=[], cached=decoded, places=np.arange(12)[::-1])
    assert torch.equal(shared.batch(np.array([0, 3])), plain.batch(np.array([11, 8])))
    again = shared_pictures(tmp_path / "decoded", "set", jpegs, SIDE)
    assert np.array_equal(again, decoded)
    assert file.stat().st_mtime_ns == written
    assert not again.flags.writeable


def share_at_once(folder, monkeypatch, *, num_runs=4):
    """How often the pictures are decoded by so many runs that begin together."""
    jpegs = [pa.py_buffer(jpeg) for jpeg in pictures(cached=False).jpegs]
    begin, num_decoded = threading.Barrier(num_runs), []

    def decode_slowly(*args, **options):
        num_decoded.append(1)
        time.sleep(0.2)
        return decode_all(*args, **options)

    def share():
        begin.wait()
        return shared_pictures(folder, "set", jpegs, SIDE)

    monkeypatch.setattr(decoded_pictures, "decode_all", decode_slowly)
    with ThreadPoolExecutor(num_runs) as runs:
        found = [run.result() for run in [runs.submit(share) for _ in range(num_runs)]]
    assert all(np.array_equal(one, found[0]) for one in found)
    assert np.array_equal(found[0], decode_all(jpegs, SIDE))
    return len(num_decoded)


def test_of_runs_that_begin_together_one_decodes_and_the_others_wait(tmp_path, monkeypatch):
    assert share_at_once(tmp_path / "decoded", monkeypatch) == 1


def test_where_a_file_system_has_no_locks_runs_share_pictures_all_the_same(tmp_path, monkeypatch):
    def no_locks(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    share_at_once(tmp_path / "decoded", monkeypatch)
    assert [path.name for path in tmp_path.rglob("*.tmp")] == []


def test_what_a_killed_run_left_half_decoded_on_this_node_is_removed(tmp_path):
    here = tmp_path / f".set-16px.npy.{socket.gethostname()}.abcd.tmp"
    there = tmp_path / ".set-16px.npy.other-node.abcd.tmp"  # where one may be at it
    for left in (here, there):
        left.touch()
    jpegs = [pa.py_buffer(jpeg) for jpeg in pictures(cached=False).jpegs]
    shared_pictures(tmp_path, "set", jpegs, SIDE)
    assert list(tmp_path.glob(".*.tmp")) == [there]


def test_pictures_that_the_disk_has_no_room_for_are_not_shared(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    jpegs = [pa.py_buffer(jpeg) for jpeg in pictures(cached=False).jpegs]
    assert shared_pictures(tmp_path, "set", jpegs, SIDE) is None
