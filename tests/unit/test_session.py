"""Joining Ray, as far as it takes none."""

import socket

import pytest

from dsdi_ray.distributed.session import ray_session
from dsdi_ray.errors import ResourceError


def test_an_address_where_nobody_listens_is_told_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (
        pytest.raises(ResourceError, match=f"no Ray cluster answers at '{address}'"),
        ray_session(address=address),
    ):
        pytest.fail("joined")
