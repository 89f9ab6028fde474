"""The weights of members: safetensors files in bundles, or state dicts from elsewhere.

The weights of a remote member are fetched once per node.
"""

import hashlib
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dsdi_ray.errors import DataError, FetchError
from dsdi_ray.storage.bundles import (
    MEMBER_FILE,
    MemberSpec,
    check_place,
    read_member_spec,
    write_member_spec,
)
from dsdi_ray.storage.filesystems import is_remote, join, local_path, short_reason
from dsdi_ray.storage.local_copies import cached_file

WEIGHTS_FILE = "model.safetensors"


def write_member(out: Path, spec: MemberSpec, weights: Mapping[str, Tensor]) -> MemberSpec:
    """Write a member bundle: into a temporary folder first, then renamed.

    Returns:
        The spec with its weights' hash.

    Raises:
        DataError: If ``out`` holds something else, or another member.
    """
    check_place(out)
    temporary = out.parent / f".{out.name}.{uuid.uuid4().hex[:8]}.tmp"
    temporary.mkdir(parents=True)
    tensors = {name: t.detach().cpu().contiguous() for name, t in weights.items()}
    save_file(tensors, temporary / WEIGHTS_FILE)
    spec = replace(spec, weights_sha256=_sha256(temporary / WEIGHTS_FILE))
    if (out / MEMBER_FILE).is_file() and read_member_spec(out).member_id != spec.member_id:
        shutil.rmtree(temporary)
        raise DataError(f"{out} holds another member; choose another folder or remove it")
    write_member_spec(temporary, spec)
    if out.exists():
        shutil.rmtree(out)
    temporary.rename(out)
    return spec


def read_member_weights(path: str | Path, spec: MemberSpec) -> dict[str, Tensor]:
    """Read a member's weights.

    Args:
        path: Folder of the bundle, or its URI.
        spec: What the bundle says of itself.

    Raises:
        DataError: If they are missing, damaged, or not those that the spec names.
    """
    file = local_path(path) / WEIGHTS_FILE
    try:
        if is_remote(path):
            file = cached_file(join(path, WEIGHTS_FILE), key=spec.weights_sha256)
        is_right = _sha256(file) == spec.weights_sha256
    except FileNotFoundError as error:
        raise DataError(f"member bundle {path}: {WEIGHTS_FILE} is missing") from error
    except (OSError, FetchError) as error:
        raise DataError(f"member bundle {path}: {WEIGHTS_FILE}: {short_reason(error)}") from error
    if not is_right:
        if is_remote(path):
            file.unlink()  # of the cache; what is there next may be right
        raise DataError(
            f"member bundle {path}: {WEIGHTS_FILE} is not the one that it was made with"
        )
    return load_file(file)


def read_weights_file(path: Path) -> dict[str, Tensor]:
    """Read a state dict from ``.safetensors``, or ``.pt``/``.pth`` without running pickled code.

    Raises:
        DataError: If it is neither, or holds more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise DataError(f"weights {path}: no such file") from error
    except (OSError, RuntimeError, EOFError, safetensors.SafetensorError) as error:
        raise DataError(f"weights {path}: cannot be read: {str(error).splitlines()[0]}") from error
    except Exception as error:  # the unpickler's own refusal is private to the standard library
        raise DataError(
            f"weights {path}: holds more than tensors and is not opened: it might run code"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise DataError(f"weights {path}: no state dict of tensors in it")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
