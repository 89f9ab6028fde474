"""Real servers on loopback: S3's protocol, faults in front of it, and plain files over HTTP."""

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

CONTROL = "/__faults__"
CUT = 1  # in place of a status: half of the answer, then the connection ends
Faults = dict[str, list[int]]  # part of a path -> what its next requests get; 0 is no fault


@contextmanager
def s3_server() -> Iterator[str]:
    """Moto's server, its address."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, handler: type["_Handler"]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.faults: Faults = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def next_fault(self, path: str) -> int:
        for part, faults in self.faults.items():
            if part in path and faults:
                return faults[0] if len(faults) == 1 and faults[0] > CUT else faults.pop(0)
        return 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes: 40 ms each time
    server: _Server

    def log_message(self, *_: object) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, BrokenPipeError):
            self.close_connection = True

    def do_GET(self) -> None:
        body = self.body()
        path = unquote(self.path)
        if path == CONTROL:
            self.server.faults = json.loads(body)
            self.answer(204, {}, b"")
            return
        self.server.requests.append((self.command, path, dict(self.headers)))
        fault = self.server.next_fault(path)
        if fault > CUT:
            self.answer(fault, {}, b"")
        else:
            self.answer(*self.respond(body), is_cut=fault == CUT)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - http.server's names

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while length := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(length))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def respond(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        raise NotImplementedError

    def answer(
        self, status: int, headers: dict[str, str], content: bytes, *, is_cut: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if is_cut else content)
        if is_cut:
            self.close_connection = True


@contextmanager
def _serving(handler: type[_Handler]) -> Iterator[_Server]:
    server = _Server(handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def faulty_proxy(target: str) -> Iterator[_Server]:
    """A server that passes everything on, but for the faults that it is told of."""
    place = urlsplit(target).netloc

    class Proxy(_Handler):
        def respond(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
            connection = HTTPConnection(place)
            own = {"connection", "transfer-encoding", "expect"}
            headers = {k: v for k, v in self.headers.items() if k.lower() not in own}
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
            content = response.read()
            connection.close()
            dropped = {"connection", "transfer-encoding", "date", "server"}
            kept = {k: v for k, v in response.getheaders() if k.lower() not in dropped}
            return response.status, kept, content

    with _serving(Proxy) as server:
        yield server


@contextmanager
def file_server(
    folder: Path, *, has_ranges: bool = True, has_etags: bool = True
) -> Iterator[_Server]:
    """A web server of a folder's files."""

    class Files(_Handler):
        def respond(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
            path = folder / urlsplit(unquote(self.path)).path.lstrip("/")
            if not path.is_file():
                return 404, {}, b""
            content = path.read_bytes()
            tag = f'"{len(content)}-{hash(content):x}"'
            headers = {"ETag": tag} if has_etags else {}
            wanted = self.headers.get("Range")
            if not (has_ranges and wanted):
                return 200, headers, content
            first, last = wanted.removeprefix("bytes=").split("-")
            if int(first) >= len(content):
                return 416, {**headers, "Content-Range": f"bytes */{len(content)}"}, b""
            part = content[int(first) : int(last) + 1 if last else None]
            end = int(first) + len(part) - 1
            span = f"bytes {first}-{end}/{len(content)}"
            return 206, {**headers, "Content-Range": span}, part

    with _serving(Files) as server:
        yield server


def set_faults(url: str, faults: Faults) -> None:
    """Tell a server in another process what to do."""
    connection = HTTPConnection(urlsplit(url).netloc)
    connection.request("PUT", CONTROL, json.dumps(faults))
    connection.getresponse().read()
    connection.close()
