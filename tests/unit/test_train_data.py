import io

import numpy as np
import torch
from PIL import Image

from dsdi_ray.distributed.train_data import Pictures, epoch_batches, load_batches

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
        decoded = np.stack([plain.picture(i).permute(1, 2, 0).numpy() for i in range(num)])
    labels = rng.random((num, 2)).astype(np.float32)
    return Pictures(jpegs=jpegs, labels=labels, side_px=SIDE, cached=decoded)


def noisy(picture):
    return picture ^ torch.randint(0, 256, picture.shape, dtype=torch.uint8)


def batches(epoch=0, rank=0, num_workers=1, num_images=10, batch_size=4):
    return epoch_batches(
        num_images,
        batch_size=batch_size,
        seed=0,
        epoch=epoch,
        rank=rank,
        num_workers=num_workers,
    )


def test_an_epoch_takes_each_image_once_at_most_and_fills_its_batches():
    drawn = batches()
    assert [len(b) for b in drawn] == [4, 4]
    assert len(set(np.concatenate(drawn))) == 8


def test_epochs_differ_and_can_be_repeated():
    assert np.array_equal(batches(epoch=3), batches(epoch=3))
    assert not np.array_equal(batches(epoch=3), batches(epoch=4))


def test_workers_share_an_epoch_without_overlap_in_equal_numbers():
    parts = [np.concatenate(batches(rank=r, num_workers=2, num_images=17)) for r in range(2)]
    assert len(parts[0]) == len(parts[1]) == 8
    assert not set(parts[0]) & set(parts[1])


def test_a_set_smaller_than_a_batch_is_one_batch():
    assert [sorted(b) for b in batches(num_images=3)] == [[0, 1, 2]]
    shared = [batches(num_images=3, rank=r, num_workers=2) for r in range(2)]
    assert [len(b) for part in shared for b in part] == [3, 3]


def test_pictures_are_the_same_from_cache_and_from_files():
    from_files, from_cache = pictures(cached=False), pictures(cached=True)
    assert all(torch.equal(from_files.picture(i), from_cache.picture(i)) for i in range(12))


def test_batches_are_the_same_however_many_processes_load_them():
    for cached in (True, False):
        found = [
            list(
                load_batches(
                    pictures(cached=cached),
                    batches(),
                    augment=noisy,
                    seed=(1, 2),
                    num_processes=num,
                )
            )
            for num in (0, 2)
        ]
        for (inputs, labels), (others, same) in zip(*found, strict=True):
            assert torch.equal(inputs, others)
            assert torch.equal(labels, same)


def test_augmentation_changes_with_the_epoch_and_leaves_the_networks_randomness_alone():
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first, second = (
        next(load_batches(pictures(cached=True), batches(), augment=noisy, seed=(0, epoch)))[0]
        for epoch in (0, 1)
    )
    assert not torch.equal(first, second)
    assert torch.equal(torch.rand(1), expected)


def test_loading_gives_the_threads_back():
    before = torch.get_num_threads()
    next(load_batches(pictures(cached=True), batches()))
    assert torch.get_num_threads() == before
