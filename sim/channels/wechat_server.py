"""WeChat Pay over HTTP on this machine: the rules with the real proofs on both sides, and faults to switch.

Knows the Authorization header, reply signatures and what a bad line does.  Refuses to know what an order is: that is
`wechat.py`.  It listens on the loopback only and holds throw-away keys.
"""

from __future__ import annotations

import base64
import binascii
import collections
import email.utils
import gzip
import hashlib
import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from sim.channels.keys import KeyPair, Platform, seal
from sim.channels.wechat import WechatRules, moment

SCHEME = "WECHATPAY2-SHA256-RSA2048"
WINDOW_S = 300
BODY_BYTES_MAX = 64 * 1024
SEEN_MAX = 1_000

# What can be switched, for some calls or all of them.  "Effect" says whether the rules saw the request.
FAULTS = {
    "slow": "effect; the answer comes `seconds` later",
    "lost_answer": "effect; the line drops without an answer",
    "lost_request": "no effect; the line drops without an answer",
    "down": "no effect; 503 with an HTML page",
    "busy": "no effect; 429",
    "system_error": "effect; 500 SYSTEM_ERROR",
    "duplicate": "effect twice, as when the network repeats a request; the second answer is sent",
    "duplicate_reply": "effect; the answer stands on the line twice",
    "lying": "effect; the answer says the opposite of the truth and its signature is wrong",
    "signtest": "effect; the signature is a probe",
    "unsigned": "effect; the answer carries no signature",
    "unknown_serial": "effect; the answer names a key nobody holds",
    "clock_off": "effect; the answer is stamped and signed six minutes ago",
    "wrong_amount": "effect; a well signed answer with one fen more",
    "wrong_order": "effect; a well signed answer about another number",
    "garbage": "effect; a well signed answer that is no JSON",
    "page": "effect; 200 with an HTML page, as from a hotel's gateway",
    "truncated": "effect; the answer ends half way",
    "redirect": "no effect; 302 to elsewhere",
    "huge": "effect; an answer of a megabyte",
}


class Seen(msgspec.Struct, frozen=True):
    """One request as it arrived, for tests and the counter's page.  `call` as in `call_of`, `at_s` by the server."""

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


class Proof(msgspec.Struct, frozen=True):
    """Who signed a request; or why nobody did."""

    mchid: str = ""
    fault: str = ""


class WechatServer:
    """`start()` gives the base URL; `stop()` ends every connection, and `start()` again takes the same port.

    `merchant_public_pem` and `merchant_serial` are what the merchant's requests must be signed with; `now_s` Unix time.
    `certificates` says whether the merchant still has platform certificates; one in public-key mode has none.
    While stopped it refuses connections: that is the fault of a channel that is really gone.
    """

    def __init__(self, rules: WechatRules, *, merchant_public_pem: bytes, merchant_serial: str, platform: Platform,
                 api_v3_key: bytes = b"0123456789abcdef0123456789abcdef", certificates: bool = False,
                 now_s: Callable[[], float] = time.time, port: int = 0) -> None:
        self.rules, self.now_s, self.certificates = rules, now_s, certificates
        self.seen: collections.deque[Seen] = collections.deque(maxlen=SEEN_MAX)
        self._merchant: Any = load_pem_public_key(merchant_public_pem)
        self._merchant_serial = merchant_serial
        self._platform, self._api_v3_key = platform, api_v3_key
        self._signers: dict[str, Any] = {
            platform.key_id: private_key(platform.public),
            platform.certificate.serial_no: private_key(platform.certificate)}
        self._faults: list[Fault] = []
        self._bill_files: dict[str, tuple[bytes, float]] = {}
        self._lock = threading.RLock()               # rules and faults are one thread's at a time
        self._lines: dict[socket.socket, threading.Thread] = {}
        self._port, self._count = port, 0
        self._http: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

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
        return f"http://127.0.0.1:{self._port}"

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
                    line.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass                             # its client was faster
        http.server_close()
        assert self._thread is not None
        self._thread.join()
        for thread in talking:
            thread.join(5)

    def fault(self, kind: str, *, call: str = "any", count: int | None = 1, seconds: float = 30) -> None:
        """Let the next `count` calls (None: all until `clear`) of `call` suffer `kind`, a key of FAULTS.

        `call` is `create query close refund refund_query certificates bill bill_file` or `any`.
        """
        assert kind in FAULTS, kind
        with self._lock:
            self._faults.append(Fault(kind, call, count, seconds))

    def clear(self, kind: str = "") -> None:
        """End all faults, or those of one kind."""
        with self._lock:
            self._faults = [fault for fault in self._faults if kind and fault.kind != kind]

    def scan(self, code_url: str, outcome: str, *, openid: str = "o-payer-1", slow_s: float = 30) -> dict[str, Any]:
        """A wallet scans, beside calls that are being served; as `WechatRules.scan`."""
        with self._lock:
            return self.rules.scan(code_url, outcome, openid=openid, slow_s=slow_s)

    def orders(self) -> list[dict[str, Any]]:
        """What the channel holds, as `WechatRules.orders`."""
        with self._lock:
            return self.rules.orders()

    # What a request meets

    def _fault_of(self, call: str) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.call in ("any", call):
                    if fault.left is not None:
                        fault.left -= 1
                        if fault.left <= 0:
                            self._faults.remove(fault)
                    return fault
        return None

    def _proof(self, header: str, method: str, path: str, body: bytes) -> Proof:
        scheme, _, rest = header.partition(" ")
        pairs = re.findall(r'(\w+)="([^"]*)"', rest)
        fields = dict(pairs)
        names = {"mchid", "nonce_str", "timestamp", "serial_no", "signature"}
        if scheme != SCHEME or set(fields) != names or len(pairs) != len(names):
            return Proof(fault="the Authorization header is malformed")
        if not re.fullmatch(r"\d{1,12}", fields["timestamp"]) or not fields["nonce_str"]:
            return Proof(fault="timestamp or nonce is malformed")
        if abs(self.now_s() - int(fields["timestamp"])) > WINDOW_S:
            return Proof(fault="the timestamp is more than five minutes off")
        if fields["serial_no"] != self._merchant_serial:
            return Proof(fault="the merchant certificate is not known")
        signed = f"{method}\n{path}\n{fields['timestamp']}\n{fields['nonce_str']}\n".encode() + body + b"\n"
        try:
            self._merchant.verify(base64.b64decode(fields["signature"], validate=True), signed, PKCS1v15(), SHA256())
        except (InvalidSignature, binascii.Error):
            return Proof(fault="the signature is wrong")
        return Proof(mchid=fields["mchid"])

    def _answer(self, call: str, method: str, path: str, headers: Any, body: bytes) -> tuple[int, int, bytes]:
        proof = self._proof(headers.get("Authorization", ""), method, path, body)
        if proof.fault:
            return 401, 268443699, dumped({"code": "SIGN_ERROR", "message": proof.fault, "detail": {
                "field": "signature", "issue": proof.fault, "location": "authorization",
                "sign_information": {"method": method, "url": path, "sign_message_length": len(body)}}})
        if not headers.get("User-Agent") or "application/json" not in headers.get("Accept", ""):
            return 400, 268435461, dumped({"code": "PARAM_ERROR", "message": "User-Agent or Accept is missing"})
        if call == "certificates":
            return self._certificates()
        with self._lock:
            if call in ("bill", "bill_file"):
                return self._bill(call, path)
            return self.rules.answer(method, path, body, proof.mchid)

    def _bill(self, call: str, path: str) -> tuple[int, int, bytes]:
        """The trade bill: first a URL good for five minutes and the SHA-1 of the unpacked file, then it."""
        query = dict(parse_qsl(urlsplit(path).query))
        if call == "bill_file":
            packed, until_s = self._bill_files.get(query.get("token", ""), (b"", 0.0))
            if self.now_s() >= until_s:
                return 404, 0, dumped({"code": "RESOURCE_NOT_EXISTS", "message": "the download URL is over"})
            return 200, 0, packed
        if set(query) - {"bill_date", "bill_type", "tar_type"} or query.get("bill_type", "ALL") != "ALL":
            return 400, 268435461, dumped({"code": "PARAM_ERROR", "message": "only the whole bill is made here"})
        status, said = self.rules.trade_bill(query.get("bill_date", ""))
        if isinstance(said, dict):
            return status, 0, dumped(said)
        token = f"local{len(self._bill_files):08d}"
        packed = gzip.compress(said, mtime=0) if query.get("tar_type") == "GZIP" else said
        self._bill_files[token] = (packed, self.now_s() + 300)
        return 200, 0, dumped({"hash_type": "SHA1", "hash_value": hashlib.sha1(said).hexdigest(),
                               "download_url": f"{self.url}/v3/billdownload/file?token={token}"})

    def _certificates(self) -> tuple[int, int, bytes]:
        if not self.certificates:
            return 404, 0, dumped({"code": "RESOURCE_NOT_EXISTS", "message": "no platform certificate is available"})
        pair, now_ms, nonce = self._platform.certificate, int(self.now_s() * 1000), "abcdefghijkl"
        sealed = seal(pair.certificate_pem, api_v3_key=self._api_v3_key, nonce=nonce, associated_data="certificate")
        return 200, 0, dumped({"data": [{
            "serial_no": pair.serial_no, "effective_time": moment(now_ms - 86_400_000),
            "expire_time": moment(now_ms + 5 * 365 * 86_400_000),
            "encrypt_certificate": {"algorithm": "AEAD_AES_256_GCM", "nonce": nonce, "associated_data": "certificate",
                                    "ciphertext": sealed}}]})

    def _signed(self, body: bytes, *, asked_serial: str, tail: int, fault: str) -> dict[str, str]:
        """Reply headers, signed with the key the request named, else with the certificate's where there is one."""
        with self._lock:
            self._count += 1
            count = self._count
        by_key = asked_serial == self._platform.key_id or not self.certificates
        serial = self._platform.key_id if by_key else self._platform.certificate.serial_no
        at_s, nonce = int(self.now_s()) - (360 if fault == "clock_off" else 0), f"local{count:027d}"
        text = f"{at_s}\n{nonce}\n".encode() + body + b"\n"
        signature = base64.b64encode(self._signers[serial].sign(text, PKCS1v15(), SHA256())).decode()
        if fault == "lying":
            signature = base64.b64encode(self._signers[serial].sign(b"not " + text, PKCS1v15(), SHA256())).decode()
        if fault == "signtest":
            signature = "WECHATPAY/SIGNTEST/" + signature[19:]
        if fault == "unknown_serial":
            serial = "PUB_KEY_ID_" + "9" * 34
        headers = {"Request-ID": f"08{count:014X}-{tail}", "Wechatpay-Timestamp": str(at_s), "Wechatpay-Nonce": nonce,
                   "Wechatpay-Signature": signature, "Wechatpay-Signature-Type": SCHEME, "Wechatpay-Serial": serial}
        return {"Request-ID": headers["Request-ID"]} if fault == "unsigned" else headers


def private_key(pair: KeyPair) -> Any:
    """Loaded without the slow check of its primes, for it was made here."""
    return load_pem_private_key(pair.private_pem, None, unsafe_skip_rsa_key_validation=True)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no news."""


def call_of(method: str, path: str) -> str:
    """Which call a request is: `create query close refund refund_query certificates bill bill_file other`."""
    steps = path.partition("?")[0].strip("/").split("/")
    match method, steps[1:]:
        case "POST", ["pay", "transactions", "native"]:
            return "create"
        case "GET", ["pay", "transactions", _, _]:
            return "query"
        case "POST", ["pay", "transactions", "out-trade-no", _, "close"]:
            return "close"
        case "POST", ["refund", "domestic", "refunds"]:
            return "refund"
        case "GET", ["refund", "domestic", "refunds", _]:
            return "refund_query"
        case "GET", ["certificates"]:
            return "certificates"
        case "GET", ["bill", "tradebill"]:
            return "bill"
        case "GET", ["billdownload", "file"]:
            return "bill_file"
    return "other"


def lie(call: str, body: bytes, kind: str) -> bytes:
    """The reply body as a liar would have it."""
    if kind == "garbage":
        return b"\x00\xff{[" + body
    if kind in ("page", "down"):
        return b"<html><body>Please sign in to the network</body></html>"
    if kind == "huge":
        return b'{"code_url":"' + b"x" * 1_000_000 + b'"}'
    try:
        said = json.loads(body)
    except ValueError:
        return body
    if kind == "lying":
        said["trade_state"] = "NOTPAY" if said.get("trade_state") == "SUCCESS" else "SUCCESS"
    if kind == "wrong_order":
        for name in ("out_trade_no", "out_refund_no"):
            if name in said:
                said[name] = "X" + said[name][1:]
    if kind == "wrong_amount":
        for name in said.get("amount", {}):
            if isinstance(said["amount"][name], int):
                said["amount"][name] += 1
    return dumped(said)


def dumped(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def _handler_of(server: WechatServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 120

        def setup(self) -> None:
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
            call = call_of(self.command, self.path)
            fault = server._fault_of(call)
            kind = fault.kind if fault is not None else ""
            if kind == "lost_request":
                self.close_connection = True
                return
            status, tail, said = self._effect(call, kind, body)
            server.seen.append(Seen(call, self.command, self.path, body, server.now_s(), status))
            if fault is not None and kind == "slow" and server._stopping.wait(fault.seconds):
                self.close_connection = True
                return
            if kind == "lost_answer":
                self.close_connection = True
                return
            self._send(call, kind, status, tail, said)

        def _effect(self, call: str, kind: str, body: bytes) -> tuple[int, int, bytes]:
            if kind == "down":
                return 503, 0, lie(call, b"", "down")
            if kind == "busy":
                return 429, 268447840, dumped({"code": "FREQUENCY_LIMITED", "message": "too many requests"})
            if kind == "redirect":
                return 302, 0, b""
            answer = server._answer(call, self.command, self.path, self.headers, body)
            if kind == "duplicate":
                answer = server._answer(call, self.command, self.path, self.headers, body)
            if kind == "system_error":
                return 500, 0, dumped({"code": "SYSTEM_ERROR", "message": "try again"})
            return answer

        def _send(self, call: str, kind: str, status: int, tail: int, said: bytes) -> None:
            if kind in ("lying", "garbage", "page", "huge", "wrong_order", "wrong_amount"):
                said = lie(call, said, kind)
                status = status if kind == "lying" else 200
            unsigned = kind in ("page", "down", "redirect", "unsigned") or (call == "bill_file" and status == 200)
            headers = server._signed(said, asked_serial=self.headers.get("Wechatpay-Serial", ""), tail=tail,
                                     fault="unsigned" if unsigned else kind)
            headers |= {"Server": "nginx", "Date": email.utils.formatdate(server.now_s(), usegmt=True)}
            if kind == "redirect":
                headers["Location"] = server.url + "/elsewhere"
            if status != 204:
                headers["Content-Type"] = "text/html" if kind in ("page", "down") else "application/json"
                if call == "bill_file" and status == 200:
                    headers["Content-Type"] = "application/octet-stream"
                headers["Content-Length"] = str(len(said))
            lines = [f"HTTP/1.1 {status} {http.client.responses[status]}", *(f"{n}: {v}" for n, v in headers.items())]
            head = "\r\n".join([*lines, "", ""]).encode()
            whole = head + said
            if kind == "truncated":
                whole, self.close_connection = whole[:len(head) + len(said) // 2], True
            if kind == "duplicate_reply":
                whole += whole
            self.wfile.write(whole)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: requests stand in `seen`."""

    return Handler
