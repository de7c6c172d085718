"""A payment channel over HTTPS: one effect, one call, one proven word back.

Knows the connection and what a broken one means.  Refuses to know any channel's bytes: a codec seals requests and reads
replies.  It never sends a request twice by itself: repeating is the core's decision, by its pace.
"""

from __future__ import annotations

import asyncio
import collections
import select
import socket
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from device.drivers.channels.codec_bytes import Reply, Request, Verdict
from device.txn.effects import (
    ChargeCard,
    ChargeCode,
    CloseOrder,
    Effect,
    FetchBill,
    PlaceOrder,
    QueryOrder,
    QueryRefund,
    RefundOrder,
)
from device.txn.inputs import BillSaid, ChannelSaid, DeviceSaid, Input, QrReady, RefundSaid, RefundWord, Said

if TYPE_CHECKING:
    import http.client
    import ssl

REPLY_BYTES_MAX = 256 * 1024
BILL_BYTES_MAX = 64 * 1024 * 1024
IDLE_S_MAX = 30                # front ends close idle connections after about a minute; leave before they do
FOLLOWS_MAX = 3                # a rotated certificate, then the bill's link, then its file


class Codec(Protocol):
    """One channel's language: keys in, requests and verdicts out.  No socket and no clock of its own.

    What a verdict's word may claim, effect by effect; whatever is not proven is `unknown`, with an amount when it is proven that
    money was taken and not whose it is:

    | effect | words |
    |---|---|
    | PlaceOrder | `qr`; `refused`: this request will never be taken; `paid` `closed` when the reply proves it |
    | ChargeCode | `paid`; `open`: the payer is asked for a password; `refused`: proven, no money moves under this number |
    | QueryOrder | `paid` `open` `absent` `closed` (dead, nothing is taken) `given_back` (taken, and back again by an undo) |
    | CloseOrder | `closed` `given_back` `absent`; `paid`: paid, and left alone; `refused`: can never be undone, nothing moved |
    | RefundOrder, QueryRefund | `done` `processing` `absent` `refused` (never under this number) `abnormal` (failed later) |
    | FetchBill | `bill` with rows; `follow` with the request for its file; `refused`: no trade that day; `unknown`: not ready |
    """

    channel: str               # its name in configuration: "wechat"
    name: str                  # its name for people: "WeChat"
    account: str               # whose keys these are
    does: frozenset[type[Effect]]

    def request(self, effect: Effect) -> Request:
        """The sealed request of `effect`.  ValueError or KeyError, with a sentence, when none can be built: no byte left."""
        ...

    def read(self, effect: Effect, reply: Reply) -> Verdict:
        """What `reply` proves about `effect`, its proof checked.  Never raises for what the far end sent."""
        ...

    def sealed(self, effect: Effect, follow: Request) -> Request:
        """A further request that the reply to `effect` named (a bill's file), made ready to send."""
        ...


class Transport(Protocol):
    """What carries a channel's calls: `Lines`, or a line without sockets in a simulated world."""

    handshakes: int
    resumed: int

    async def ask(self, request: Request, bytes_max: int = ...) -> Reply: ...
    async def close(self) -> None: ...


class HttpsChannel:
    """One account of a shop at one channel, as a driver; `ChannelAccounts` puts several together.

    An effect of another account does not go out.  `base_url` scheme and host; `ca_file`
    a PEM of roots in place of the system's; `client_cert` a PEM of certificate and key where the channel wants mutual
    TLS.  `connect_s` and `read_s` bound each wait, their sum plus `read_s` the whole call.  No failure outside raises: it
    becomes UNKNOWN with a sentence, and the channel's health changes on `inputs()`.
    `dated` is told the time that a reply's Date names, when it came over TLS.  `lines` gives what carries the calls to a base URL,
    in place of real lines.
    """

    at_once = 4

    def __init__(self, codec: Codec, *, base_url: str, connect_s: float = 5, read_s: float = 15, ca_file: str = "",
                 client_cert: str = "", dated: Callable[[float], None] | None = None,
                 lines: Callable[[str], Transport] | None = None) -> None:
        self.does, self._codec = codec.does, codec
        self.health = Health(f"channel:{codec.channel}")
        self._opened = lines or (lambda url: Lines(url, codec.name, connect_s=connect_s, read_s=read_s, at_once=self.at_once,
                                                   ca_file=ca_file, client_cert=client_cert, dated=dated))
        self._lines = self._opened(base_url)

    @property
    def handshakes(self) -> int:
        """Connections opened since the start, each one TCP and TLS handshake."""
        return self._lines.handshakes

    @property
    def resumed(self) -> int:
        """How many of `handshakes` went on from an earlier one's ticket: no certificate, no key exchange proof anew."""
        return self._lines.resumed

    def inputs(self) -> AsyncIterator[Input]:
        """DeviceSaid("channel:NAME", "ok" | "slow" | "lying" | "gone" | "key", why), whenever that changes."""
        return self.health.changes()

    async def do(self, effect: Effect) -> Input:
        """One call, one word.  Never raises for what happens outside; AssertionError for an effect not in `does`."""
        return told(effect, await self.ask(effect))

    async def ask(self, effect: Effect) -> Verdict:
        """As `do`, the word as the codec gave it."""
        assert type(effect) in self.does, f"no effect of this channel: {type(effect).__name__}"
        verdict = await self._verdict(effect)
        self.health.set(verdict.health, verdict.detail if verdict.health != "ok" else "")
        return verdict

    async def close(self) -> None:
        """Drop the connections; a call under way answers UNKNOWN."""
        self.health.end()
        await self._lines.close()

    async def _verdict(self, effect: Any) -> Verdict:
        account = effect.account if isinstance(effect, FetchBill) else effect.intent.account
        codec = self._codec
        if account.account != codec.account:           # something may have left under it before: only its own keys can tell
            return Verdict("unknown", detail="no key here for the account this was made under")
        try:
            request = codec.request(effect)
        except (KeyError, ValueError) as fault:
            return unbuildable(effect, fault)
        try:
            first = self._follow if isinstance(effect, FetchBill) else self._lines.ask      # some send the file at once
            verdict = codec.read(effect, await first(request))
            for _ in range(FOLLOWS_MAX):
                if verdict.follow is None:
                    break
                verdict = codec.read(effect, await self._follow(codec.sealed(effect, verdict.follow)))
        except NoAnswer as silence:
            return Verdict("unknown", detail=silence.why, health=silence.health)
        return verdict if verdict.follow is None else Verdict("unknown", detail="one question led to ever more questions")

    async def _follow(self, request: Request) -> Reply:
        """A bill's file: as large as a day is long, and often on another host."""
        if "://" not in request.path:
            return await self._lines.ask(request, BILL_BYTES_MAX)
        parts = urlsplit(request.path)
        path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        try:
            lines = self._opened(f"{parts.scheme}://{parts.netloc}")
        except ValueError:
            raise NoAnswer("lying", "the bill lies at an address that is none") from None
        try:
            return await lines.ask(Request(request.method, path, request.body, request.headers), BILL_BYTES_MAX)
        finally:
            await lines.close()


def unbuildable(effect: Effect, fault: Exception) -> Verdict:
    """Nothing has left under this intent and nothing ever will: a first request may be refused for good."""
    first = isinstance(effect, (PlaceOrder, ChargeCode, ChargeCard))
    return Verdict("refused" if first else "unknown", detail=f"no request can be built: {fault}")


def told(effect: Effect, verdict: Verdict) -> Input:
    """The verdict as the core's input."""
    match effect:
        case FetchBill():
            rows = tuple((r.kind, r.order_no, r.refund_no, r.amount_fen, r.channel_no) for r in verdict.rows if not r.failed)
            ready = verdict.word in ("bill", "refused")           # a day without trade has an empty bill
            return BillSaid(effect.account, effect.day, ready, rows, verdict.detail)
        case RefundOrder(intent=refund) | QueryRefund(intent=refund):
            return RefundSaid(refund.refund_no, RefundWord(verdict.word), verdict.amount_fen, verdict.channel_no,
                              verdict.detail)
        case PlaceOrder(intent=intent) if verdict.word == "qr":
            return QrReady(intent.order_no, verdict.qr)
        case (PlaceOrder(intent=intent) | ChargeCode(intent=intent) | ChargeCard(intent=intent) | QueryOrder(intent=intent)
              | CloseOrder(intent=intent)):
            return ChannelSaid(intent.order_no, Said(verdict.word), verdict.amount_fen, verdict.channel_no, verdict.detail,
                               verdict.wallet, isinstance(effect, CloseOrder), verdict.payer)
    raise AssertionError(effect)


class NoAnswer(Exception):
    """No whole reply came.  `health` and `why` as in DeviceSaid."""

    def __init__(self, health: str, why: str) -> None:
        super().__init__(why)
        self.health, self.why = health, why


class Health:
    """The last word on a part, and its changes as inputs.  An unread queue keeps only the newest few."""

    def __init__(self, part: str) -> None:
        self._part, self._word, self._ended = part, "", False
        self._standing = ("", "")
        self._waiting: collections.deque[DeviceSaid] = collections.deque(maxlen=8)
        self._news = asyncio.Event()

    def stand(self, word: str = "", why: str = "") -> None:
        """A complaint that stands in the place of every `ok` until it is taken back: what works today, and will not for ever."""
        self._standing = (word, why)
        if word and self._word in ("", "ok"):
            self.set("ok", "")

    def set(self, word: str, why: str) -> None:
        if word == "ok" and self._standing[0]:
            word, why = self._standing
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
    """Kept-alive connections, one a call under way.  Follows no redirect and repeats nothing.

    An idle line is used again, the freshest first, and let go after IDLE_S_MAX: so a burst of calls costs one handshake,
    and the first call after a quiet hour another, which resumes by the ticket of the last (`resumed` counts those).
    """

    def __init__(self, base_url: str, name: str, *, connect_s: float, read_s: float, at_once: int, ca_file: str = "",
                 client_cert: str = "", now_s: Callable[[], float] = time.monotonic,
                 dated: Callable[[float], None] | None = None) -> None:
        parts = urlsplit(base_url)
        assert parts.scheme in ("http", "https") and parts.hostname, base_url
        self.handshakes = self.resumed = 0
        self._tls, self._host, self._port, self._name = parts.scheme == "https", parts.hostname, parts.port, name
        self._ca_file, self._client_cert, self._dated = ca_file, client_cert, dated
        self._context: ssl.SSLContext | None = None
        self._ticket: ssl.SSLSession | None = None
        self._connect_s, self._read_s, self._now_s = connect_s, read_s, now_s
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix=name)
        self._idle: list[tuple[http.client.HTTPConnection, float]] = []    # freshest last; append and pop are atomic
        self._calls: set[_Call] = set()
        self._closed = False

    async def ask(self, request: Request, bytes_max: int = REPLY_BYTES_MAX) -> Reply:
        """Send `request` once and give its reply.  Raises NoAnswer, also when the whole call outlasts its bound."""
        if self._closed:
            raise NoAnswer("gone", "the channel is being shut down")
        call = _Call()
        self._calls.add(call)
        work = asyncio.get_running_loop().run_in_executor(self._threads, self._exchange, call, request, bytes_max)
        try:
            # A reply that trickles in never meets a read's own time-out: hence a bound on the whole.
            done, _ = await asyncio.wait({work}, timeout=self._connect_s + 2 * self._read_s)
            if not done:
                raise NoAnswer("slow", f"{self._name} did not finish its answer in time")
            reply = work.result()
            if self._tls and self._dated is not None and (at_s := _date_of(reply)):
                self._dated(at_s)
            return reply
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
        for line, _ in self._idle:
            line.close()

    def _exchange(self, call: _Call, request: Request, bytes_max: int) -> Reply:
        import http.client

        line, whole = self._line(call), False
        try:
            if call.given_up:
                raise NoAnswer("gone", "given up before anything was sent")
            line.request(request.method, request.path, body=request.body or None, headers=request.headers)
            answer = line.getresponse()
            body = answer.read(bytes_max + 1)
            if len(body) > bytes_max:
                raise NoAnswer("lying", f"the reply is far longer than any {self._name} sends")
            if answer.length:
                raise NoAnswer("lying", "the reply broke off half way")
            whole = answer.isclosed() and not answer.will_close
            return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, body)
        except TimeoutError:
            raise NoAnswer("slow", f"{self._name} did not answer in time") from None
        except http.client.HTTPException as fault:
            dropped = isinstance(fault, http.client.RemoteDisconnected)
            why = "the line was closed before an answer came" if dropped else "the answer is not HTTP"
            raise NoAnswer("gone" if dropped else "lying", why) from None
        except UnicodeError:               # a path that the far end named
            raise NoAnswer("lying", "the address is none that HTTP could ask for") from None
        except OSError as fault:
            raise NoAnswer("gone", f"the line broke before an answer came ({type(fault).__name__})") from None
        finally:
            call.sock = None
            if whole:
                self._keep_ticket(line)
                self._idle.append((line, self._now_s()))
            else:
                line.close()

    def _line(self, call: _Call) -> http.client.HTTPConnection:
        """The freshest idle connection, or a new one when it idled long or the far end has let go of it.

        Looking first matters: a POST that meets a dead connection would be an UNKNOWN for nothing.  Bytes nobody
        asked for, such as a doubled reply, cost the connection too, or they would answer the next question.
        """
        while self._idle:
            try:
                line, used_s = self._idle.pop()
            except IndexError:             # another thread was faster
                break
            if self._now_s() - used_s <= IDLE_S_MAX and not _readable(line.sock):
                call.sock = line.sock
                return line
            line.close()
        return self._connected(call)

    def _connected(self, call: _Call) -> http.client.HTTPConnection:
        import http.client
        import ssl

        made = http.client.HTTPSConnection if self._tls else http.client.HTTPConnection
        try:
            line = made(self._host, self._port)
            line.auto_open = 0             # type: ignore[attr-defined]  # http.client would silently reconnect and resend
            sock = socket.create_connection((self._host, line.port), self._connect_s)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                # A body that ends without TLS's own farewell is no whole body: hence no ragged ends.
                sock = self._trust().wrap_socket(sock, server_hostname=self._host, do_handshake_on_connect=False,
                                                 suppress_ragged_eofs=False, session=self._ticket)
            line.sock = call.sock = sock   # from here on a call that is given up ends even a handshake that trickles
            if isinstance(sock, ssl.SSLSocket):
                self._shake_hands(sock)
        except ssl.SSLCertVerificationError:
            raise NoAnswer("lying", f"the far end's certificate is not {self._name}'s") from None
        except ssl.SSLError:
            raise NoAnswer("gone", f"no encrypted line to {self._name}") from None
        except UnicodeError:               # a host that no name server could know, as a bill's address may name it
            raise NoAnswer("lying", "the address names no host") from None
        except TimeoutError:
            raise NoAnswer("gone", f"no connection to {self._name} in time") from None
        except OSError as fault:
            raise NoAnswer("gone", f"no connection to {self._name} ({type(fault).__name__})") from None
        self.handshakes += 1
        line.sock.settimeout(self._read_s)
        return line

    def _shake_hands(self, sock: ssl.SSLSocket) -> None:
        try:
            sock.do_handshake()
        except OSError:
            self._ticket = None            # a ticket the far end chokes on must not cost the next call, too
            sock.close()
            raise
        self.resumed += bool(sock.session_reused)

    def _keep_ticket(self, line: http.client.HTTPConnection) -> None:
        """TLS 1.3 sends its tickets behind the handshake: they are there once a reply was read."""
        import ssl

        if isinstance(line.sock, ssl.SSLSocket):
            session = line.sock.session
            if session is not None and session.has_ticket:
                self._ticket = session

    def _trust(self) -> ssl.SSLContext:
        import ssl

        if self._context is None:
            self._context = ssl.create_default_context(cafile=self._ca_file or None)
            self._context.minimum_version = ssl.TLSVersion.TLSv1_2
            self._context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF       # or OpenSSL takes a cut line for a farewell
            if self._client_cert:
                self._context.load_cert_chain(self._client_cert)
        return self._context


def _date_of(reply: Reply) -> float:
    """The Unix time of its Date, 0.0 for none."""
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(reply.headers["date"]).timestamp()
    except (KeyError, ValueError, OverflowError):
        return 0.0


def _readable(sock: socket.socket | None) -> bool:
    if sock is None:
        return True
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


def _drop(work: asyncio.Future[Reply]) -> None:
    """Take the late outcome of a call nobody waits for, so that asyncio does not report it."""
    if not work.cancelled():
        work.exception()
