"""What every local channel server is: HTTP or HTTPS on the loopback, a list of what it saw, and faults to switch.

Knows lines, and what a bad one does.  Refuses to know orders and signatures: a channel's own server adds them.
`exchange` is the same call without a line, for worlds on virtual time: rules, proofs and faults are one code path.
"""

from __future__ import annotations

import collections
import email.utils
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import msgspec

BODY_BYTES_MAX = 64 * 1024
SEEN_MAX = 1_000

# What can be switched on any channel, for some calls or all.  "Effect" says whether the rules saw the request.
FAULTS = {
    "slow": "effect; the answer comes `seconds` later",
    "lost_answer": "effect; the line drops without an answer",
    "lost_request": "no effect; the line drops without an answer",
    "down": "no effect; 503 with an HTML page",
    "busy": "no effect; the channel's own word for too many calls",
    "system_error": "effect; the channel's own word for a fault inside",
    "duplicate": "effect twice, as when the network repeats a request; the second answer is sent",
    "duplicate_reply": "effect; the answer stands on the line twice",
    "lying": "effect; the answer says the opposite of the truth and its proof is wrong",
    "unsigned": "effect; the answer carries no proof",
    "wrong_amount": "effect; a well proven answer with one fen more",
    "wrong_order": "effect; a well proven answer about another number",
    "garbage": "effect; a well proven answer that is not the channel's format",
    "page": "effect; 200 with an HTML page, as from a hotel's gateway",
    "truncated": "effect; the answer ends half way",
    "redirect": "no effect; 302 to elsewhere",
    "huge": "effect; an answer of a megabyte",
}
PAGE = b"<html><body>Please sign in to the network</body></html>"
LOST = frozenset({"lost_request", "lost_answer", "truncated"})      # kinds after which no whole answer arrives


class Ask(msgspec.Struct, frozen=True):
    """One request as it arrived: header names in lower case; `client` the subject of a proven client certificate."""

    call: str
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    client: str = ""


class Say(msgspec.Struct, frozen=True):
    """What the rules answer, not proven yet.  `note` is the channel's own business: a numeric reason, a file's name."""

    status: int
    body: bytes = b""
    note: Any = None


class Seen(msgspec.Struct, frozen=True):
    """One request as it arrived, for tests and the counter's page; `at_s` by the server."""

    call: str
    method: str
    path: str
    body: bytes
    at_s: float
    status: int


class Fault(msgspec.Struct):
    kind: str
    call: str
    left: int | None
    seconds: float


class Answer(msgspec.Struct, frozen=True):
    """What goes back: `kind` the fault it suffered, "" for none; `headers` as sent."""

    status: int
    headers: dict[str, str]
    body: bytes
    kind: str = ""
    seconds: float = 0


class ChannelServer:
    """`start()` gives the base URL; `stop()` ends every connection, and `start()` again takes the same port.

    A channel's server fills in `call_of`, `rules_say`, `proved`, `lied` and `complaint`.  `now_s` Unix time.  `tls` a
    server-side context, None for plain HTTP.  `choose(call)` names a seeded fault for a call that no switched one took.
    While stopped it refuses connections: that is the fault of a channel that is really gone.
    """

    faults: ClassVar[dict[str, str]] = FAULTS

    def __init__(self, *, now_s: Callable[[], float] = time.time, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.now_s, self.tls = now_s, tls
        self.seen: collections.deque[Seen] = collections.deque(maxlen=SEEN_MAX)
        self.fired: collections.Counter[str] = collections.Counter()
        self.choose: Callable[[str], str] = lambda call: ""
        self.handshakes = 0
        self._faults: list[Fault] = []
        self._lock = threading.RLock()               # rules and faults are one thread's at a time
        self._lines: dict[socket.socket, threading.Thread] = {}
        self._port = port
        self._http: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    # What a channel fills in

    def call_of(self, method: str, path: str, body: bytes) -> str:
        """Which call a request is, in the channel's own short words; `other` for none of them."""
        raise NotImplementedError

    def rules_say(self, ask: Ask) -> Say:
        """The request's proof checked and the rules asked."""
        raise NotImplementedError

    def proved(self, ask: Ask, say: Say, kind: str) -> Answer:
        """The answer with its proof, spoilt as `kind` wants."""
        raise NotImplementedError

    def lied(self, ask: Ask, body: bytes, kind: str) -> bytes:
        """The body as a liar would have it: `lying`, `wrong_order` or `wrong_amount`."""
        raise NotImplementedError

    def complaint(self, ask: Ask, kind: str) -> Say:
        """The channel's own words for `busy` and `system_error`."""
        raise NotImplementedError

    # Its life

    def start(self) -> str:
        """Listen; returns the base URL without a slash at its end."""
        assert self._http is None, "started already"
        self._stopping.clear()
        self._http = _Http(("127.0.0.1", self._port), _handler_of(self))
        self._port = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self.url

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self._port}"

    def stop(self) -> None:
        """Close the port and every connection; slow answers are given up."""
        http, self._http = self._http, None
        if http is None:
            return
        self._stopping.set()
        http.shutdown()
        with self._lock:
            talking = list(self._lines.values())
            for line in self._lines:
                try:
                    socket.socket.shutdown(line, socket.SHUT_RDWR)
                except OSError:
                    pass                             # its client was faster
        http.server_close()
        assert self._thread is not None
        self._thread.join()
        for thread in talking:
            thread.join(5)

    # Its faults

    def fault(self, kind: str, *, call: str = "any", count: int | None = 1, seconds: float = 30) -> None:
        """Let the next `count` calls (None: all until `clear`) of `call`, or `any`, suffer `kind`, a key of `faults`."""
        assert kind in self.faults, kind
        with self._lock:
            self._faults.append(Fault(kind, call, count, seconds))

    def clear(self, kind: str = "") -> None:
        """End all faults, or those of one kind."""
        with self._lock:
            self._faults = [fault for fault in self._faults if kind and fault.kind != kind]

    def _fault_of(self, call: str) -> tuple[str, float]:
        with self._lock:
            for fault in self._faults:
                if fault.call in ("any", call):
                    if fault.left is not None:
                        fault.left -= 1
                        if fault.left <= 0:
                            self._faults.remove(fault)
                    return fault.kind, fault.seconds
            return self.choose(call), 0

    # One call

    def exchange(self, method: str, path: str, headers: dict[str, str], body: bytes, client: str = "") -> Answer:
        """One request, without a line: what would go back.  After a kind in LOST nothing whole arrives."""
        ask = Ask(self.call_of(method, path, body), method, path, {n.lower(): v for n, v in headers.items()}, body, client)
        kind, seconds = self._fault_of(ask.call)
        if kind:
            self.fired[kind] += 1
        if kind == "lost_request":
            return Answer(0, {}, b"", kind)
        with self._lock:
            say = self._effect(ask, kind)
            if kind in ("lying", "wrong_order", "wrong_amount"):
                say = msgspec.structs.replace(say, body=self.lied(ask, say.body, kind))
            if kind in ("garbage", "huge"):
                say = Say(200, b"\x00\xff{[" + say.body if kind == "garbage" else b'{"huge":"' + b"x" * 1_000_000 + b'"}')
            answer = (Answer(say.status, {"Content-Type": "text/html"}, say.body) if kind in ("page", "down", "redirect")
                      else self.proved(ask, say, kind))
        self.seen.append(Seen(ask.call, method, path, body, self.now_s(), say.status))
        return msgspec.structs.replace(answer, kind=kind, seconds=seconds)

    def _effect(self, ask: Ask, kind: str) -> Say:
        if kind == "down":
            return Say(503, PAGE)
        if kind == "redirect":
            return Say(302)
        if kind == "busy":
            return self.complaint(ask, kind)
        say = self.rules_say(ask)
        if kind == "duplicate":
            say = self.rules_say(ask)
        if kind == "page":
            return Say(200, PAGE)
        return self.complaint(ask, kind) if kind == "system_error" else say


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no news."""


def _handler_of(server: ChannelServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 120
        client = ""

        def setup(self) -> None:
            if server.tls is not None:               # in this thread: a client that stalls in its handshake holds up nobody
                self.request.settimeout(self.timeout)
                self.request = server.tls.wrap_socket(self.request, server_side=True)
                server.handshakes += 1
                held = self.request.getpeercert() or {}
                self.client = "/".join(value for rdn in held.get("subject", ()) for _, value in rdn)
            super().setup()
            with server._lock:
                server._lines[self.connection] = threading.current_thread()
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def finish(self) -> None:
            with server._lock:
                server._lines.pop(self.connection, None)
            super().finish()

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def _serve(self) -> None:
            length = self.headers.get("Content-Length", "0")
            if server._stopping.is_set() or not length.isdigit() or int(length) > BODY_BYTES_MAX:
                self.close_connection = True
                return
            body = self.rfile.read(int(length))
            if len(body) < int(length):
                self.close_connection = True     # half a request has no effect
                return
            answer = server.exchange(self.command, self.path, dict(self.headers), body, self.client)
            late = answer.kind == "slow" and server._stopping.wait(answer.seconds)
            if late or answer.kind in ("lost_request", "lost_answer"):
                self.close_connection = True
                return
            self._send(answer)

        def _send(self, answer: Answer) -> None:
            headers = {"Server": "nginx", "Date": email.utils.formatdate(server.now_s(), usegmt=True)} | answer.headers
            if answer.kind == "redirect":
                headers["Location"] = server.url + "/elsewhere"
            if answer.status != 204:
                headers["Content-Length"] = str(len(answer.body))
            lines = [f"HTTP/1.1 {answer.status} {http.client.responses[answer.status]}",
                     *(f"{n}: {v}" for n, v in headers.items())]
            head = "\r\n".join([*lines, "", ""]).encode()
            whole = head + answer.body
            if answer.kind == "truncated":
                whole, self.close_connection = whole[:len(head) + len(answer.body) // 2], True
            if answer.kind == "duplicate_reply":
                whole += whole
            self.wfile.write(whole)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: requests stand in `seen`."""

    return Handler
