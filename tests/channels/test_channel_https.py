"""The line under every channel: real TLS on the loopback, and every way an answer can fail to come."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import socket
import ssl
import threading

import pytest

from device.drivers.channels.codec_bytes import Request, Verdict
from device.drivers.channels.https import IDLE_S_MAX, REPLY_BYTES_MAX, HttpsChannel, Lines, NoAnswer
from device.drivers.channels.wechat import WechatCodec
from device.txn.effects import FetchBill, Intent, QueryOrder
from device.txn.inputs import Said
from device.types import Account
from sim.channels.keys import key_pair
from sim.channels.server import Answer, Ask, ChannelServer, Say
from sim.channels.tls import tls_room


class Echo(ChannelServer):
    """Says who the caller proved to be."""

    def call_of(self, method, path, body):
        return "echo"

    def rules_say(self, ask: Ask) -> Say:
        return Say(200, json.dumps({"client": ask.client}).encode())

    def proved(self, ask: Ask, say: Say, kind: str) -> Answer:
        return Answer(say.status, {"Content-Type": "application/json"}, say.body)


@pytest.fixture(scope="module")
def room():
    return tls_room()


@dataclasses.dataclass
class Far:
    """A server in `room`, and lines to it that trust `room` and show its client certificate where told."""

    room: object
    folder: object
    asks: str = "asked"

    def __post_init__(self):
        self.server = Echo(tls=self.room.server_context(client=self.asks))
        self.server.start()
        self.ca_file, self.client_cert = self.room.written(self.folder)

    def asked(self, *, client_cert="", ca_file=None):
        async def run():
            lines = Lines(self.server.url, "WeChat", connect_s=2, read_s=2, at_once=1,
                          ca_file=self.ca_file if ca_file is None else ca_file, client_cert=client_cert)
            try:
                return await lines.ask(Request("GET", "/"))
            finally:
                await lines.close()
        return asyncio.run(run())


@pytest.fixture
def far(room, tmp_path):
    made = Far(room, tmp_path)
    yield made
    made.server.stop()


def test_a_client_certificate_is_shown_and_named(far):
    assert json.loads(far.asked().body) == {"client": ""}
    assert json.loads(far.asked(client_cert=far.client_cert).body) == {"client": "1900000001"}


class Elsewhere:
    """A codec whose bill lies at `url`, as the far end told it."""

    channel = name = "wechat"
    account, does = "main", frozenset({FetchBill})

    def __init__(self, url):
        self.url = url

    def request(self, effect):
        return Request("GET", "/")

    def sealed(self, effect, follow):
        return follow

    def read(self, effect, reply):
        return Verdict("follow", follow=Request("GET", self.url))


@pytest.mark.parametrize("path", ["https://127.0.0.1:99999/file", "https://a..weixin.qq.com/file", "{far}/账单"])
def test_an_address_that_the_far_end_made_up_is_a_sentence_and_no_crash(far, path):
    async def asked():
        channel = HttpsChannel(Elsewhere(path.format(far=far.server.url)), base_url=far.server.url, connect_s=2, read_s=2,
                               ca_file=far.ca_file)
        try:
            return await channel.ask(FetchBill(Account("wechat", "main"), "2026-11-23"))
        finally:
            await channel.close()
    verdict = asyncio.run(asked())
    assert (verdict.word, verdict.health) == ("unknown", "lying") and "address" in verdict.detail


def test_a_certificate_by_another_authority_is_no_channel(far, tmp_path_factory):
    other, _ = tls_room().written(tmp_path_factory.mktemp("other"))
    with pytest.raises(NoAnswer, match="certificate is not WeChat's") as caught:
        far.asked(ca_file=other)
    assert caught.value.health == "lying"
    assert not far.server.seen


# Handshakes

def over_lines(far, asks, *, at_once=1):
    """`asks` is a coroutine function of (lines, clock); clock is a list of one number."""
    async def run():
        clock = [1_000.0]
        lines = Lines(far.server.url, "WeChat", connect_s=2, read_s=2, at_once=at_once, ca_file=far.ca_file,
                      client_cert=far.client_cert, now_s=lambda: clock[0])
        try:
            return await asks(lines, clock)
        finally:
            await lines.close()
    return asyncio.run(run())


def test_a_hundred_calls_are_one_handshake_and_a_quiet_hour_costs_a_resumed_one(far):
    async def asks(lines, clock):
        for _ in range(100):
            await lines.ask(Request("GET", "/"))
        busy = (lines.handshakes, lines.resumed)
        clock[0] += 3_600
        named = json.loads((await lines.ask(Request("GET", "/"))).body)
        return busy, (lines.handshakes, lines.resumed), named
    assert over_lines(far, asks) == ((1, 0), (2, 1), {"client": "1900000001"})
    assert far.server.handshakes == 2


def test_polls_within_the_idle_time_keep_the_line(far):
    async def asks(lines, clock):
        for _ in range(20):
            await lines.ask(Request("GET", "/"))
            clock[0] += IDLE_S_MAX
        return lines.handshakes
    assert over_lines(far, asks) == 1


def test_after_a_burst_one_line_serves_and_the_others_grow_old(far):
    async def asks(lines, clock):
        await asyncio.gather(*(lines.ask(Request("GET", "/")) for _ in range(4)))
        opened = lines.handshakes
        for _ in range(20):
            clock[0] += 5
            await lines.ask(Request("GET", "/"))
        return opened, lines.handshakes
    opened, after = over_lines(far, asks, at_once=4)
    assert opened == after <= 4


def test_a_restarted_server_is_noticed_before_anything_is_sent(far):
    async def asks(lines, clock):
        await lines.ask(Request("GET", "/"))
        await asyncio.to_thread(far.server.stop)
        await asyncio.to_thread(far.server.start)
        return (await lines.ask(Request("GET", "/"))).status, lines.handshakes
    assert over_lines(far, asks) == (200, 2)


# Everything that can go wrong behind a good certificate, and one that is not

def head(*more, length=None):
    lines = ["HTTP/1.1 200 OK", "Content-Type: application/json", *more]
    lines += [f"Content-Length: {length}"] if length is not None else []
    return "\r\n".join([*lines, "", ""]).encode()


def half_closed(line, _):
    """The far end is cut off in mid-body: TCP ends, TLS never said farewell."""
    line.sendall(head(length=100) + b'{"code_url"')
    socket.socket.shutdown(line, socket.SHUT_WR)


def ragged_end(line, _):
    """No length was named, so only TLS's farewell could say that this is all."""
    line.sendall(head("Connection: close") + b'{"trade_state":"SUCCESS"}')
    socket.socket.shutdown(line, socket.SHUT_WR)


def farewell(line, _):
    line.sendall(head(length=100) + b'{"code_url"')
    line.unwrap()


def silent_end(line, _):
    line.unwrap()


def not_http(line, _):
    line.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")


def endless_head(line, ended):
    flood(line, ended, b"X: " + b"y" * 65_000, first=b"HTTP/1.1 200 OK\r\n")


def huge(line, ended):
    flood(line, ended, b"x" * 65_536, first=head(length=100 * 1024 * 1024))


def huge_in_chunks(line, ended):
    flood(line, ended, b"10000\r\n" + b"x" * 65_536 + b"\r\n", first=head("Transfer-Encoding: chunked"))


def trickle(line, ended):
    """One byte every twentieth of a second never meets a read's own time-out."""
    line.sendall(head(length=100_000))
    while not ended.wait(0.05):
        line.sendall(b"x")


def html(line, _):
    page = b"<html>sign in to the network</html>"
    line.sendall(head(length=len(page)) + page)


def broken_json(line, _):
    line.sendall(head(length=12) + b'{"code_url":')


def redirect(line, _):
    line.sendall(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")


def flood(line, ended, piece, first):
    """Push a hundred megabytes, and tell how many bytes left before the other side had enough."""
    line.sendall(first)
    ended.pushed = len(first)
    while ended.pushed < 100 * 1024 * 1024 and not ended.is_set():
        line.sendall(piece)
        ended.pushed += len(piece)


BEHAVIOURS = {
    half_closed: ("gone", "the line broke before an answer came (SSLError)"),
    ragged_end: ("gone", "the line broke before an answer came (SSLError)"),
    farewell: ("lying", "the reply broke off half way"),
    silent_end: ("gone", "the line was closed before an answer came"),
    not_http: ("lying", "the answer is not HTTP"),
    endless_head: ("lying", "the answer is not HTTP"),
    huge: ("lying", "the reply is far longer than any WeChat sends"),
    huge_in_chunks: ("lying", "the reply is far longer than any WeChat sends"),
    trickle: ("slow", "WeChat did not finish its answer in time"),
    html: ("lying", "the reply carries no signature"),
    broken_json: ("lying", "the reply carries no signature"),
    redirect: ("lying", "something answered 302 in WeChat's place"),
}
SHOP = Account("wechat", "shop", (("appid", "wx1"), ("mchid", "1900000001"), ("notify_url", "https://shop.example/n")))
TEA = Intent("0000012345000000010Z", "wechat", SHOP, 900, "tea", "2026-11-18T10:26:40+08:00", "2026-11-18T10:31:40+08:00")


class Ended(threading.Event):
    pushed = 0


class Played:
    """A listener that lets one behaviour loose on each connection; `tls` None speaks what it likes from the first byte."""

    def __init__(self, behaviour, tls):
        self.ended, self.accepted = Ended(), 0
        self._behaviour, self._tls = behaviour, tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            if self.ended.is_set():
                raw.close()
                return
            self.accepted += 1
            raw.settimeout(5)
            try:
                if self._tls is None:
                    self._behaviour(raw, self.ended)
                else:
                    with self._tls.wrap_socket(raw, server_side=True) as line:
                        line.recv(65_536)
                        self._behaviour(line, self.ended)
                        while not self.ended.is_set() and line.recv(65_536):
                            pass
            except OSError:
                pass                                         # the client had enough
            finally:
                raw.close()

    def stop(self):
        self.ended.set()
        with socket.create_connection(self._listener.getsockname()):
            self._thread.join(5)
        self._listener.close()


@pytest.fixture(scope="module")
def merchant():
    return key_pair("merchant")


def answer_of(played, merchant, ca_file):
    async def run():
        channel = HttpsChannel(WechatCodec(account="shop", private_key_pem=merchant.private_pem, serial_no="1",
                                           platform_keys={}, now_s=lambda: 1_763_432_800, nonce=lambda: "n"),
                               base_url=played.url, connect_s=0.5, read_s=0.5, ca_file=ca_file)
        try:
            said = await asyncio.wait_for(channel.do(QueryOrder(TEA)), 5)
        finally:
            await channel.close()
        return said, [news async for news in channel.inputs()]
    try:
        return asyncio.run(run())
    finally:
        played.stop()


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda b: b.__name__)
def test_whatever_the_line_brings_is_unknown_in_one_sentence(behaviour, room, merchant, tmp_path):
    played = Played(behaviour, room.server_context())
    said, health = answer_of(played, merchant, room.written(tmp_path)[0])
    assert (said.said, [news.word for news in health], said.detail) == (Said.UNKNOWN, [BEHAVIOURS[behaviour][0]],
                                                                         BEHAVIOURS[behaviour][1])
    assert played.accepted == 1                              # nothing was asked again, no redirect followed
    assert played.ended.pushed < REPLY_BYTES_MAX + 16 * 1024 * 1024      # what the kernel's buffers took, at most


def test_a_certificate_for_another_address_is_no_channel(merchant, tmp_path):
    room = tls_room(host="127.0.0.9")
    played = Played(html, room.server_context())
    said, health = answer_of(played, merchant, room.written(tmp_path)[0])
    assert (said.said, said.detail, health[0].word) == (Said.UNKNOWN, "the far end's certificate is not WeChat's", "lying")


def test_a_line_that_is_not_tls_is_no_channel(merchant):
    played = Played(lambda line, _: line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), None)
    said, health = answer_of(played, merchant, "")
    assert (said.said, said.detail, health[0].word) == (Said.UNKNOWN, "no encrypted line to WeChat", "gone")


def test_a_handshake_that_trickles_is_cut(merchant):
    def drip(line, ended):
        line.sendall(b"\x16\x03\x03\x40\x00")
        while not ended.wait(0.05):
            line.sendall(b"\x02")
    said, health = answer_of(Played(drip, None), merchant, "")
    assert (said.said, said.detail, health[0].word) == (Said.UNKNOWN, "no connection to WeChat in time", "gone")


def test_a_server_that_wants_a_certificate_gets_no_request_without_one(room, tmp_path, merchant):
    made = Far(room, tmp_path, asks="required")
    try:
        with pytest.raises(NoAnswer, match="the line broke"):
            made.asked()
        assert json.loads(made.asked(client_cert=made.client_cert).body) == {"client": "1900000001"}
        assert [seen.status for seen in made.server.seen] == [200]
    finally:
        made.server.stop()


def test_the_oldest_tls_spoken_is_1_2(room):
    assert Lines("https://127.0.0.1:1", "WeChat", connect_s=1, read_s=1, at_once=1)._trust().minimum_version \
        >= ssl.TLSVersion.TLSv1_2
