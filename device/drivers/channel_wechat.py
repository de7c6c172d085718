"""WeChat Pay over HTTPS: one call out, one proven word back.

Knows the connection, the merchant's key and the platform's keys.  Refuses to know what a word means for a sale, and
never sends a POST twice by itself: repeating is the core's decision, by its pace.
"""

from __future__ import annotations

import asyncio
import base64
import collections
import select
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from device.drivers import channel_wechat_bytes as wire
from device.txn.effects import (
    CloseOrder,
    Effect,
    Intent,
    PlaceOrder,
    QueryOrder,
    QueryRefund,
    RefundIntent,
    RefundOrder,
)
from device.txn.inputs import ChannelSaid, DeviceSaid, Input, QrReady, RefundSaid, RefundWord, Said
from device.types import Account

if TYPE_CHECKING:
    import http.client

REPLY_BYTES_MAX = 256 * 1024
IDLE_S_MAX = 30                # WeChat's front ends close idle connections after about a minute; leave before they do
PART = "channel:wechat"


class WechatChannel:
    """A merchant account at WeChat Pay, as a driver.

    `base_url` scheme and host; `private_key_pem` and `serial_no` the merchant's; `platform_keys` from serial or
    PUB_KEY_ID to public key PEM, several while WeChat rotates; `now_s` Unix time; `nonce` a fresh ASCII string of up to
    32 characters.  `connect_s` and `read_s` bound each wait, their sum plus `read_s` the whole call.  No failure
    outside raises: it becomes UNKNOWN with a sentence, and the channel's health changes on `inputs()`.
    """

    does: frozenset[type[Effect]] = frozenset({PlaceOrder, QueryOrder, CloseOrder, RefundOrder, QueryRefund})
    at_once = 4

    def __init__(self, *, base_url: str, account: str, private_key_pem: bytes, serial_no: str,
                 platform_keys: dict[str, bytes], now_s: Callable[[], float], nonce: Callable[[], str],
                 connect_s: float = 5, read_s: float = 15) -> None:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

        self.account = account
        self._signer: Any = load_pem_private_key(private_key_pem, password=None)
        self._serial_no = serial_no
        self._platform: dict[str, Any] = {serial: load_pem_public_key(pem) for serial, pem in platform_keys.items()}
        self._asked_serial = next((s for s in platform_keys if s.startswith(wire.PUBLIC_KEY_PREFIX)), "")
        self._now_s, self._nonce = now_s, nonce
        self._lines = Lines(base_url, connect_s=connect_s, read_s=read_s, at_once=self.at_once)
        self._health = Health(PART)

    def inputs(self) -> AsyncIterator[Input]:
        """DeviceSaid("channel:wechat", "ok" | "slow" | "lying" | "gone", why), whenever that changes."""
        return self._health.changes()

    async def do(self, effect: Effect) -> Input:
        """One call, one word.  Never raises for what happens outside; AssertionError for an effect not in `does`."""
        match effect:
            case PlaceOrder(intent=intent):
                return placed(intent, await self._order("place", intent))
            case QueryOrder(intent=intent):
                return said(intent, await self._order("query", intent))
            case CloseOrder(intent=intent):
                return said(intent, await self._order("close", intent))
            case RefundOrder(intent=refund):
                return refund_said(refund, await self._refund("refund", refund))
            case QueryRefund(intent=refund):
                return refund_said(refund, await self._refund("refund_query", refund))
        raise AssertionError(f"no effect of a channel: {type(effect).__name__}")

    async def close(self) -> None:
        """Drop the connections; a call under way answers UNKNOWN."""
        self._health.end()
        await self._lines.close()

    async def _order(self, call: str, intent: Intent) -> wire.Verdict:
        def word(reply: wire.Reply, doubt: str, now_s: float) -> wire.Verdict:
            return wire.order_word(call, intent, reply, doubt, now_s=now_s)
        try:
            request = wire.order_call(call, intent)
        except (KeyError, ValueError) as fault:
            # Nothing has left under this intent and nothing ever will: a create may be refused for good.
            return wire.Verdict("refused" if call == "place" else "unknown", detail=f"no request can be built: {fault}")
        return await self._verdict(request, intent.account, word)

    async def _refund(self, call: str, intent: RefundIntent) -> wire.Verdict:
        def word(reply: wire.Reply, doubt: str, now_s: float) -> wire.Verdict:
            return wire.refund_word(call, intent, reply, doubt, now_s=now_s)
        return await self._verdict(wire.refund_call(call, intent), intent.account, word)

    async def _verdict(self, request: wire.Request, account: Account,
                       word: Callable[[wire.Reply, str, float], wire.Verdict]) -> wire.Verdict:
        mchid = dict(account.fields).get("mchid", "")
        if account.account != self.account or not (mchid.isascii() and mchid.isalnum()):
            return wire.Verdict("unknown", detail="no key here for the account this was made under")
        try:
            reply = await self._lines.ask(request, self._headers(request, mchid))
        except NoAnswer as silence:
            verdict = wire.Verdict("unknown", detail=silence.why, health=silence.health)
        else:
            now_s = self._now_s()
            verdict = word(reply, wire.proof_fault(reply, now_s=now_s, verify=self._verify), now_s)
        self._health.set(verdict.health, verdict.detail if verdict.health != "ok" else "")
        return verdict

    def _headers(self, request: wire.Request, mchid: str) -> dict[str, str]:
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        at_s, nonce = int(self._now_s()), self._nonce()
        signature = self._signer.sign(wire.text_to_sign(request, at_s, nonce), PKCS1v15(), SHA256())
        headers = {
            "Accept": "application/json",
            "User-Agent": "tillbox",
            "Authorization": wire.authorization(mchid=mchid, serial_no=self._serial_no, at_s=at_s, nonce=nonce,
                                                signature=signature),
        }
        if request.body:
            headers["Content-Type"] = "application/json"
        if self._asked_serial:
            headers["Wechatpay-Serial"] = self._asked_serial
        return headers

    def _verify(self, serial: str, signature: bytes, text: bytes) -> bool | None:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        key = self._platform.get(serial)
        if key is None:
            return None
        try:
            key.verify(signature, text, PKCS1v15(), SHA256())
        except InvalidSignature:
            return False
        return True


def placed(intent: Intent, verdict: wire.Verdict) -> Input:
    if verdict.word == "qr":
        return QrReady(intent.order_no, verdict.qr)
    return said(intent, verdict)


def said(intent: Intent, verdict: wire.Verdict) -> ChannelSaid:
    return ChannelSaid(intent.order_no, Said(verdict.word), verdict.amount_fen, verdict.channel_no, verdict.detail)


def refund_said(intent: RefundIntent, verdict: wire.Verdict) -> RefundSaid:
    return RefundSaid(intent.refund_no, RefundWord(verdict.word), verdict.amount_fen, verdict.channel_no, verdict.detail)


def open_sealed(*, api_v3_key: bytes, nonce: str, associated_data: str, ciphertext: str) -> bytes:
    """What WeChat sealed: a platform certificate or a notice.  `api_v3_key` 32 bytes, `ciphertext` base64, tag last.

    ValueError when it does not open.  Source: WeChat Pay API v3, AEAD_AES_256_GCM.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        return AESGCM(api_v3_key).decrypt(nonce.encode(), base64.b64decode(ciphertext), associated_data.encode())
    except InvalidTag:
        raise ValueError("the sealed text does not open with this key") from None


class NoAnswer(Exception):
    """No whole reply came.  `health` and `why` as in DeviceSaid."""

    def __init__(self, health: str, why: str) -> None:
        super().__init__(why)
        self.health, self.why = health, why


class Health:
    """The last word on a part, and its changes as inputs.  An unread queue keeps only the newest few."""

    def __init__(self, part: str) -> None:
        self._part, self._word, self._ended = part, "", False
        self._waiting: collections.deque[DeviceSaid] = collections.deque(maxlen=8)
        self._news = asyncio.Event()

    def set(self, word: str, why: str) -> None:
        if word != self._word:
            self._word = word
            self._waiting.append(DeviceSaid(self._part, word, why))
            self._news.set()

    def end(self) -> None:
        self._ended = True
        self._news.set()

    async def changes(self) -> AsyncIterator[Input]:
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            if self._ended:
                return
            self._news.clear()
            await self._news.wait()


class _Call:
    """One request under way.  `given_up` stops a late sending; `sock` lets the waiting side cut it short."""

    def __init__(self) -> None:
        self.given_up = False
        self.sock: socket.socket | None = None

    def cut(self) -> None:
        self.given_up = True
        sock = self.sock
        if sock is not None:
            try:
                socket.socket.shutdown(sock, socket.SHUT_RDWR)     # a TLS socket's own would pull it from its reader
            except OSError:
                pass                       # gone already, which is what we wanted


class Lines:
    """Kept-alive connections, one a worker thread.  Follows no redirect and repeats nothing."""

    def __init__(self, base_url: str, *, connect_s: float, read_s: float, at_once: int) -> None:
        parts = urlsplit(base_url)
        assert parts.scheme in ("http", "https") and parts.hostname, base_url
        self._tls, self._host, self._port = parts.scheme == "https", parts.hostname, parts.port
        self._connect_s, self._read_s = connect_s, read_s
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="wechat")
        self._mine = threading.local()
        self._calls: set[_Call] = set()
        self._open: list[http.client.HTTPConnection] = []
        self._closed = False

    async def ask(self, request: wire.Request, headers: dict[str, str]) -> wire.Reply:
        """Send `request` once and give its reply.  Raises NoAnswer, also when the whole call outlasts its bound."""
        if self._closed:
            raise NoAnswer("gone", "the channel is being shut down")
        call = _Call()
        self._calls.add(call)
        work = asyncio.get_running_loop().run_in_executor(self._threads, self._exchange, call, request, headers)
        try:
            # A reply that trickles in never meets a read's own time-out: hence a bound on the whole.
            done, _ = await asyncio.wait({work}, timeout=self._connect_s + 2 * self._read_s)
            if not done:
                raise NoAnswer("slow", "WeChat did not finish its answer in time")
            return work.result()
        finally:
            self._calls.discard(call)
            if not work.done():
                work.add_done_callback(_drop)
                call.cut()

    async def close(self) -> None:
        """Cut what is under way and close every connection; takes at most the time to connect."""
        self._closed = True
        for call in list(self._calls):
            call.cut()
        await asyncio.to_thread(self._threads.shutdown)
        for line in self._open:
            line.close()

    def _exchange(self, call: _Call, request: wire.Request, headers: dict[str, str]) -> wire.Reply:
        import http.client

        line = self._line(call)
        try:
            if call.given_up:
                raise NoAnswer("gone", "given up before anything was sent")
            line.request(request.method, request.path, body=request.body or None, headers=headers)
            answer = line.getresponse()
            body = answer.read(REPLY_BYTES_MAX + 1)
            if len(body) > REPLY_BYTES_MAX:
                raise NoAnswer("lying", "the reply is far longer than any WeChat sends")
            if answer.length:
                raise NoAnswer("lying", "the reply broke off half way")
            reply = wire.Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, body)
            if answer.will_close or not answer.isclosed():
                self._hang_up()
            return reply
        except TimeoutError:
            self._hang_up()
            raise NoAnswer("slow", "WeChat did not answer in time") from None
        except http.client.HTTPException as fault:
            self._hang_up()
            dropped = isinstance(fault, http.client.RemoteDisconnected)
            why = "the line was closed before an answer came" if dropped else "the answer is not HTTP"
            raise NoAnswer("gone" if dropped else "lying", why) from None
        except OSError as fault:
            self._hang_up()
            raise NoAnswer("gone", f"the line broke before an answer came ({type(fault).__name__})") from None
        except NoAnswer:
            self._hang_up()
            raise
        finally:
            call.sock = None
            self._mine.used_s = time.monotonic()

    def _line(self, call: _Call) -> http.client.HTTPConnection:
        """This thread's connection, opened anew when it idled long or the far end has let go of it.

        Looking first matters: a POST that meets a dead connection would be an UNKNOWN for nothing.  Bytes nobody
        asked for, such as a doubled reply, cost the connection too, or they would answer the next question.
        """
        line = getattr(self._mine, "line", None)
        if line is not None and (time.monotonic() - self._mine.used_s > IDLE_S_MAX or _readable(line.sock)):
            self._hang_up()
            line = None
        if line is None:
            line = self._mine.line = self._connected()
        call.sock = line.sock
        return line

    def _connected(self) -> http.client.HTTPConnection:
        import http.client
        import ssl

        try:
            if self._tls:
                line: http.client.HTTPConnection = http.client.HTTPSConnection(
                    self._host, self._port, timeout=self._connect_s, context=ssl.create_default_context())
            else:
                line = http.client.HTTPConnection(self._host, self._port, timeout=self._connect_s)
            line.connect()
        except ssl.SSLCertVerificationError:
            raise NoAnswer("lying", "the far end's certificate is not WeChat's") from None
        except TimeoutError:
            raise NoAnswer("gone", "no connection to WeChat in time") from None
        except OSError as fault:
            raise NoAnswer("gone", f"no connection to WeChat ({type(fault).__name__})") from None
        line.auto_open = 0                 # type: ignore[attr-defined]  # http.client would silently reconnect and resend
        line.sock.settimeout(self._read_s)
        self._open.append(line)
        return line

    def _hang_up(self) -> None:
        line = getattr(self._mine, "line", None)
        self._mine.line = None
        if line is not None:
            self._open.remove(line)
            line.close()


def _readable(sock: socket.socket | None) -> bool:
    if sock is None:
        return True
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


def _drop(work: asyncio.Future[wire.Reply]) -> None:
    """Take the late outcome of a call nobody waits for, so that asyncio does not report it."""
    if not work.cancelled():
        work.exception()
