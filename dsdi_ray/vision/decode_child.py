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
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, BinaryIO

import numpy as np

from dsdi_ray.vision.decode import ClipSource, DecodeOutcome, DecodeSettings

HEADER = struct.Struct("<IQ")  # length of the JSON text, length of the bytes behind it


def send(
    stream: BinaryIO, message: Mapping[str, Any], arrays: list[np.ndarray] | None = None
) -> None:
    """Write a message: header, JSON, then the arrays' bytes one after another."""
    text = json.dumps(message).encode()
    buffers = [memoryview(np.ascontiguousarray(a)).cast("B") for a in arrays or []]
    stream.write(HEADER.pack(len(text), sum(b.nbytes for b in buffers)))
    stream.write(text)
    stream.writelines(buffers)
    stream.flush()


def main() -> None:
    """Serve requests until the parent closes the pipe or dies."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing else may write there
    requests: queue.Queue[Mapping[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    import av
    import decord

    av.logging.set_level(av.logging.PANIC)
    decord.logging.set_level(decord.logging.QUIET)
    stream = _Whole(answers)
    send(stream, {"kind": "ready"})
    while True:
        request = requests.get()
        if request["op"] == "probe":
            _probe(stream, request)
        else:
            _decode(stream, request)


class _Whole:
    """An unbuffered stream whose writes are complete; large arrays are not copied on their way."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def write(self, data: bytes | memoryview) -> int:
        view = memoryview(data)
        written = 0
        while written < len(view):
            written += self._raw.write(view[written:]) or 0
        return written

    def flush(self) -> None:
        pass


def _listen(requests: "queue.Queue[Mapping[str, Any]]") -> None:
    for line in sys.stdin.buffer:
        requests.put(json.loads(line))
    os._exit(0)


def _probe(stream: Any, request: Mapping[str, Any]) -> None:
    from dsdi_ray.vision.probe import probe

    send(stream, {"kind": "probe", "result": asdict(probe(request["uri"], request["media"]))})


def _decode(stream: Any, request: Mapping[str, Any]) -> None:
    from dsdi_ray.vision.clip_reader import ClipReader

    reader = ClipReader(
        ClipSource(**request["source"]),
        request["sizes"],
        DecodeSettings(**request["settings"]),
        first_decoder=request["first_decoder"],
    )
    for part in reader.read(request["first_chunk"]):
        if part is None:
            send(stream, {"kind": "alive"})
        elif isinstance(part, DecodeOutcome):
            send(stream, {"kind": "outcome", "outcome": asdict(part)})
        else:
            message = {
                "kind": "chunk",
                "chunk_index": part.chunk_index,
                "num_frames": len(part.frame_indices),
                "sizes": list(part.pixels),
            }
            send(stream, message, [part.frame_indices, part.times_seconds, *part.pixels.values()])


if __name__ == "__main__":
    main()
