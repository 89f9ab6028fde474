"""What it costs that a clip is on a server: seconds to fetch it against seconds to decode it.

And what an index takes of it: its ends. The server is on loopback; it keeps to a rate per
connection and lets 30 ms pass before it answers. Clips are 1080p, sampled at 10 fps by one actor.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pyarrow as pa
from footage_1080p import make_clips

from dsdi_ray.distributed.decode_actor import DecodeClips
from dsdi_ray.distributed.probing import _probe_part
from dsdi_ray.storage.content_ids import content_id, remote_content_id
from dsdi_ray.storage.filesystems import open_remote
from dsdi_ray.storage.local_copies import LocalCopies
from dsdi_ray.vision.decode import DecodeSettings

_BLOCK_BYTES = 2**18
_LATENCY_SECONDS = 0.03
_RATES_MB_PER_SECOND = (100, 50, 20, 5)


@contextmanager
def throttled_server(folder: Path, *, mb_per_second: float) -> Iterator[tuple[str, list[int]]]:
    """Serve a folder's files at a rate; also the bytes sent, one entry per answer."""
    sent: list[int] = []

    class Files(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            time.sleep(_LATENCY_SECONDS)
            content = (folder / self.path.lstrip("/")).read_bytes()
            first, last = self.headers["Range"].removeprefix("bytes=").split("-")
            part = content[int(first) : int(last) + 1 if last else None]
            span = f"{first}-{int(first) + len(part) - 1}/{len(content)}"
            self.send_response(206)
            self.send_header("ETag", f'"{len(content)}"')
            self.send_header("Content-Range", f"bytes {span}")
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            started = time.monotonic()
            for i in range(0, len(part), _BLOCK_BYTES):
                self.wfile.write(part[i : i + _BLOCK_BYTES])
                due = started + (i + _BLOCK_BYTES) / (mb_per_second * 1e6)
                time.sleep(max(0.0, due - time.monotonic()))
            sent.append(len(part))

    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", sent
        server.shutdown()


def decode_seconds(clips: Sequence[Path]) -> float:
    """Wall clock per clip of one decode actor; the first clip, with its start, is not counted."""
    whole = {"media": "video", "start_seconds": None, "end_seconds": None, "member_ids": ["m"]}
    items = [
        {"work_id": i, "uri": str(clip), "content_id": content_id(clip), **whole}
        for i, clip in enumerate(clips)
    ]
    actor = DecodeClips(DecodeSettings(), {"m": 224})
    list(actor(pa.Table.from_pylist(items[:1])))
    started = time.monotonic()
    for chunk in actor(pa.Table.from_pylist(items[1:])):
        outcome = chunk["outcome"][0].as_py()
        assert outcome is None or outcome["status"] == "ok", outcome
    return (time.monotonic() - started) / (len(items) - 1)


def fetch_seconds(uris: Sequence[str]) -> float:
    """Wall clock per clip, with the checks that it is the one that was indexed."""
    copies = LocalCopies()
    ids = [str(remote_content_id(open_remote(uri))) for uri in uris]
    started = time.monotonic()
    for uri, one in zip(uris, ids, strict=True):
        copies.get(uri, content_id=one)
    return (time.monotonic() - started) / len(uris)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        clips = make_clips(folder, num_clips=arguments.clips, seconds=arguments.seconds)
        num_bytes = sum(clip.stat().st_size for clip in clips)
        print(f"{len(clips)} clips, {num_bytes / len(clips) / 1e6:.1f} MB each")
        decoding = decode_seconds(clips)
        print(f"decode: {decoding:.2f} s per clip")
        for rate in _RATES_MB_PER_SECOND:
            with throttled_server(folder, mb_per_second=rate) as (url, _):
                fetching = fetch_seconds([f"{url}/{clip.name}" for clip in clips])
            ratio = (fetching + decoding) / decoding
            print(f"fetch at {rate:>3} MB/s: {fetching:.2f} s per clip, ratio {ratio:.2f}")
        with throttled_server(folder, mb_per_second=50) as (url, sent):
            started = time.monotonic()
            facts = _probe_part([(f"{url}/{clip.name}", "video") for clip in clips])
            seconds = (time.monotonic() - started) / len(clips)
        assert not any(f["probe_error"] for f in facts)
        print(f"index: {seconds:.2f} s per file, {100 * sum(sent) / num_bytes:.0f} % of it sent")


if __name__ == "__main__":
    main()
