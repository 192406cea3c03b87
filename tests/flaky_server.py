"""A loopback file server that cuts connections, stalls, answers 500 and ignores ranges, as told."""

import threading
from collections import Counter, deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote


class FlakyServer:
    """Serves `folder` on 127.0.0.1; each fault in `faults` (`cut`, `stall`, `500`, `short`) spoils one tar request."""

    def __init__(self, folder: Path, *, ranges: bool = True, stall_seconds: float = 20.0) -> None:
        self.faults: deque[str] = deque()
        self.always: dict[str, str] = {}
        """File name -> fault of every request for it."""
        self.requests: Counter[str] = Counter()
        self.bytes_sent: Counter[str] = Counter()
        self.suffix = ".tar"
        self._done = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(folder, ranges, stall_seconds))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(outer, folder: Path, ranges: bool, stall_seconds: float) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                path = folder / unquote(self.path).lstrip("/")
                outer.requests[path.name] += 1
                if not path.is_file():
                    self.send_error(404)
                    return
                fault = outer.always.get(path.name)
                if fault is None and path.name.endswith(outer.suffix) and outer.faults:
                    fault = outer.faults.popleft()
                self.answer(path, fault)

            def answer(self, path: Path, fault: str | None) -> None:
                if fault == "500":
                    self.send_error(500)
                    return
                data, status = path.read_bytes(), 200
                wanted = self.headers.get("Range", "")
                if ranges and wanted.startswith("bytes="):
                    low, _, high = wanted.removeprefix("bytes=").partition("-")
                    data, status = data[int(low) : int(high) + 1], 206
                if fault == "short":
                    data = data[: len(data) // 2]
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if fault in ("cut", "stall"):
                    self.wfile.write(data[: len(data) // 2])
                    self.wfile.flush()
                    if fault == "stall":
                        outer._done.wait(stall_seconds)
                    self.close_connection = True
                    return
                outer.bytes_sent[path.name] += len(data)  # a client that has them looks here at once
                self.wfile.write(data)

        return Handler
