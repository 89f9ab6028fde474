"""How a worker's run ends early: what is returned to the driver, and what is raised for Ray."""

import socket

import pytest
import torch

from dsdi_ray.distributed.loss_watch import DivergedError
from dsdi_ray.distributed.run_owner import OwnerError, check_owner
from dsdi_ray.distributed.train_loop import mistake_of
from dsdi_ray.errors import DataError, ResourceError


def ended_by(error, *, num_workers):
    def train():
        if error is not None:
            raise error

    return mistake_of(train, name="tiny", num_workers=num_workers)


def test_workers_end_where_another_run_has_taken_over(tmp_path):
    (tmp_path / "owner").write_text("me")
    check_owner(tmp_path, "me")
    with pytest.raises(OwnerError, match="was started again for the same --out; this run ends"):
        check_owner(tmp_path, "another")


def test_a_folder_that_the_node_does_not_see_is_said_with_the_node(tmp_path):
    with pytest.raises(OwnerError, match=f"not seen from the node {socket.gethostname()}; --out"):
        check_owner(tmp_path / "elsewhere", "me")


def test_a_run_that_comes_to_its_end_has_no_mistake():
    assert ended_by(None, num_workers=1) is None


def test_one_worker_returns_its_mistake_so_that_ray_does_not_start_it_again():
    mistake = DataError("the set is damaged")
    assert ended_by(mistake, num_workers=1) is mistake


def test_a_gpu_without_memory_is_a_mistake_that_is_not_done_again():
    mistake = ended_by(torch.OutOfMemoryError("CUDA out of memory"), num_workers=1)
    assert isinstance(mistake, ResourceError)
    assert "recipe tiny: the GPU's memory does not do for its batches" in str(mistake)


@pytest.mark.parametrize("error", [DivergedError("diverged"), OwnerError("another's")])
def test_several_workers_return_what_all_of_them_come_upon(error):
    assert ended_by(error, num_workers=2) is error


@pytest.mark.parametrize(
    ("error", "raised"),
    [(DataError("torn"), DataError), (torch.OutOfMemoryError("memory"), ResourceError)],
)
def test_what_one_of_several_workers_comes_upon_is_raised_since_the_others_wait(error, raised):
    with pytest.raises(raised):
        ended_by(error, num_workers=2)
