"""The counter over HTTP on the loopback address: sockets, nothing else.  What a call means stands in `calls.py`."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from sim.counter.calls import BODY_BYTES_MAX, Answer, Counter, answer, as_json

EVENT_EVERY_S = 0.25
LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")


class CounterServer:
    """Serves one counter.  `port` 0 takes a free one; OSError when the port is taken.

    `start()` gives the URL; `stop()` ends every thread.
    """

    def __init__(self, counter: Counter, port: int = 8600) -> None:
        self._stopping = threading.Event()
        handler = type("Handler", (_Handler,), {"counter": counter, "stopping": self._stopping})
        self._http = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._http.daemon_threads = True
        self.port: int = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.1,), name="counter-http", daemon=True)

    def start(self) -> str:
        self._thread.start()
        return self.url

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._http.shutdown()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    counter: Counter
    stopping: threading.Event
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        if self.path == "/events":
            self._events()
        else:
            self._answer(b"")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > BODY_BYTES_MAX:
            self.close_connection = True            # the body stays unread, so this connection can carry no other call
            sentence = f"The body has more than {BODY_BYTES_MAX} bytes." if length.isdigit() else \
                "The call needs a Content-Length."
            self._send(as_json({"error": sentence}, 413 if length.isdigit() else 411))
            return
        self._answer(self.rfile.read(int(length)))

    def _answer(self, raw: bytes) -> None:
        # A page of another site can make a browser send requests here; it cannot make it lie about the host.
        host = self.headers.get("Host", "127.0.0.1").rsplit(":", 1)[0]
        if host not in LOCAL_NAMES:
            self._send(as_json({"error": f"This counter answers on 127.0.0.1 only, not as {host[:60]!r}."}, 403))
            return
        self._send(answer(self.counter, self.command, self.path, raw))

    def _send(self, reply: Answer) -> None:
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.kind)
        self.send_header("Content-Length", str(len(reply.body)))
        self.send_header("Cache-Control", "no-store")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(reply.body)

    def _events(self) -> None:
        """Server-sent events: the overview, whenever it differs from the one sent before."""
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        before, beat_s = "", time.monotonic()
        try:
            while not self.stopping.is_set():
                now = json.dumps(self.counter.overview(), ensure_ascii=False)
                if now != before:
                    before = now
                    self.wfile.write(f"data: {now}\n\n".encode())
                elif time.monotonic() - beat_s > 5:
                    self.wfile.write(b": still here\n\n")       # finds out that the browser has gone
                    beat_s = time.monotonic()
                self.wfile.flush()
                self.stopping.wait(EVENT_EVERY_S)
        except (BrokenPipeError, ConnectionResetError):
            return

    def log_message(self, *args: object) -> None:
        """Calls are not logged: the page asks four times a second."""
