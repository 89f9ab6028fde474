"""The child process of :mod:`dsdi_ray.vision.decode_process`: decodes what it is told to.

Started as ``python -m dsdi_ray.vision.decode_child``; requests are JSON lines on standard input,
answers are messages (see :func:`send`) on standard output. It leaves when its input ends, so it
never outlives its parent.
"""

import json
import os
import queue
import struct
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsdi_ray.vision.decode import ClipSource, DecodeOutcome, DecodeSettings

HEADER = struct.Struct("<IQ")  # length of the JSON text, length of the bytes behind it


def send(descriptor: int, message: Mapping[str, Any], arrays: Sequence[NDArray[Any]] = ()) -> None:
    """Write a message to a pipe: header, JSON, then the arrays' bytes, which are not copied."""
    text = json.dumps(message).encode()
    buffers = [np.ascontiguousarray(a).data.cast("B") for a in arrays]
    header = HEADER.pack(len(text), sum(b.nbytes for b in buffers))
    for part in (memoryview(header + text), *buffers):
        num_written = 0
        while num_written < part.nbytes:
            num_written += os.write(descriptor, part[num_written:])


def main() -> None:
    """Serve requests until the parent closes the pipe or dies."""
    stream = os.dup(sys.stdout.fileno())
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing else may write there
    requests: queue.Queue[Mapping[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    # decord loads every CUDA library of this name: *measured*, 0.9 s and 850 MiB, for a GPU decoder
    # that is not asked for.
    sys.modules["nvidia"] = None  # type: ignore[assignment] # "not to be found"
    import av
    import decord

    from dsdi_ray.vision import decord_log

    av.logging.set_level(av.logging.PANIC)
    decord.logging.set_level(decord.logging.QUIET)
    decord_log.start_counting()
    send(stream, {"kind": "ready"})
    while True:
        request = requests.get()
        if request["op"] == "probe":
            _probe(stream, request)
        else:
            _decode(stream, request)


def _listen(requests: "queue.Queue[Mapping[str, Any]]") -> None:
    # A descriptor of its own: at exit the interpreter aborts where a thread holds sys.stdin's lock.
    with os.fdopen(os.dup(sys.stdin.fileno()), "rb") as lines:
        for line in lines:
            requests.put(json.loads(line))
    os._exit(0)


def _probe(stream: int, request: Mapping[str, Any]) -> None:
    from dsdi_ray.vision.probe import probe

    send(stream, {"kind": "probe", "result": asdict(probe(request["uri"], request["media"]))})


def _decode(stream: int, request: Mapping[str, Any]) -> None:
    from dsdi_ray.vision.clip_reader import ClipReader

    reader = ClipReader(
        ClipSource(**request["source"]),
        request["sizes"],
        DecodeSettings(**request["settings"]),
        is_careful=request["is_careful"],
    )
    for part in reader.read(request["first_chunk"]):
        if part is None or isinstance(part, float):
            send(stream, {"kind": "alive", "patience_seconds": part or 0.0})
        elif isinstance(part, DecodeOutcome):
            send(stream, {"kind": "outcome", "outcome": asdict(part)})
        else:
            message = {
                "kind": "chunk",
                "chunk_index": part.chunk_index,
                "num_frames": len(part.frame_indices),
                "num_expected": reader.num_expected,
                "served_by": sorted(reader.served_by),
                "sizes": list(part.pixels),
            }
            send(stream, message, [part.frame_indices, part.times_seconds, *part.pixels.values()])
        del part  # not kept while the next chunk is decoded


if __name__ == "__main__":
    main()
