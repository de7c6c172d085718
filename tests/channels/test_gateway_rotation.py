"""The terminal's key changes without a moment in which box and gateway hold no key in common."""

from __future__ import annotations

import asyncio
import itertools
from types import SimpleNamespace

import pytest

from device.drivers import private_file
from device.drivers.channels import gateway_rotation as rotation
from device.drivers.channels.accounts import KeySet
from device.drivers.channels.codec_bytes import Reply
from device.drivers.channels.gateway import GatewayCodec
from device.drivers.channels.gateway_agreement import Agreement
from device.drivers.channels.https import HttpsChannel
from device.drivers.channels.terminal_bytes import Held, held_of, held_text
from device.drivers.private_file import PlainFile
from device.drivers.registry import CHANNELS, SystemWall
from device.errors import DriverGone
from device.txn.effects import QueryOrder
from device.txn.inputs import Said
from sim.channels.gateway import GatewayRules
from sim.channels.gateway_server import GatewayServer
from sim.channels.gateway_terminals import NEXT_KEYS_MAX
from tests.channels.test_channel_gateway import SECRET, START_S, TEA

NONCES = itertools.count()


@pytest.fixture
def gateway():
    server = GatewayServer(GatewayRules(lambda: START_S * 1000), secret=SECRET, now_s=lambda: START_S)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def key_file(tmp_path):
    file = tmp_path / "terminal.key"
    file.write_bytes(SECRET + b"\n")
    return file


def keys_in(file):
    held = held_of(file.read_bytes())
    return held.newest, held.older


def booted(server, key_file, *steps):
    """What a box that starts from its key file answers to `steps`: `rotate`, `query`, or `health`, the last said."""
    async def run():
        held = held_of(key_file.read_bytes())
        codec = GatewayCodec(account="main", secret=held.newest, older=held.older, now_s=lambda: START_S,
                             nonce=lambda: f"nonce{next(NONCES)}")
        channel = rotation.GatewayChannel(codec, terminal_id="T10001", key_file=PlainFile(key_file), held=held,
                                          base_url=server.url)
        do = {"rotate": channel.rotate, "query": lambda: channel.do(QueryOrder(TEA)), "health": lambda: heard(channel)}
        try:
            answers = [await do[step]() for step in steps]
        finally:
            await channel.close()
        return [getattr(answer, "said", answer) for answer in answers]
    return asyncio.run(run())


async def heard(channel):
    said = list(channel.health._waiting)
    channel.health._waiting.clear()
    return [(one.word, one.why) for one in said]


def test_the_old_key_dies_with_the_first_use_of_the_new(gateway, key_file):
    assert booted(gateway, key_file, "rotate") == [True]
    newest, older = keys_in(key_file)
    assert (older, key_file.stat().st_mode & 0o777) == (SECRET, 0o600)
    assert (gateway.first.secret, next_keys(gateway)) == (SECRET, [newest])     # not used yet: both are good
    assert booted(gateway, key_file, "query", "rotate", "query") == [Said.ABSENT, True, Said.ABSENT]
    assert keys_in(key_file) == (gateway.first.secret, newest)


def next_keys(server):
    return [key for _, key in server.first.nexts.values()]


def test_no_key_travels(gateway, key_file):
    heard_bytes, exchange = [], gateway.exchange

    def listening(method, path, headers, body, client=""):
        answer = exchange(method, path, headers, body, client)
        heard_bytes.append(repr(headers).encode() + body + answer.body)
        return answer
    gateway.exchange = listening
    assert booted(gateway, key_file, "rotate", "query") == [True, Said.ABSENT]
    assert len(heard_bytes) == 2 and not any(gateway.first.secret in said or SECRET in said for said in heard_bytes)


def test_a_lost_answer_heals_and_what_was_agreed_in_vain_dies_unused(gateway, key_file):
    gateway.fault("lost_answer", call="rotate", count=9)
    assert booted(gateway, key_file, *["rotate"] * 9, "query") == [False] * 9 + [Said.ABSENT]
    assert len(next_keys(gateway)) == NEXT_KEYS_MAX
    assert booted(gateway, key_file, "rotate", "query") == [True, Said.ABSENT]
    assert (gateway.first.secret, next_keys(gateway)) == (keys_in(key_file)[0], [])


def test_a_rotation_asked_again_with_the_same_half_agrees_to_the_same_key(gateway):
    codec = GatewayCodec(account="main", secret=SECRET, now_s=lambda: START_S, nonce=lambda: f"nonce{next(NONCES)}")
    half, agreed = Agreement(), []
    for _ in range(2):
        request = codec.rotate_request("T10001", half)
        agreed.append(codec.new_key(half, reply_of(gateway.exchange(request.method, request.path, request.headers, request.body))))
    assert agreed[0] == agreed[1] == (next_keys(gateway)[0], SECRET)


def reply_of(answer):
    return Reply(answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.body)


@pytest.mark.parametrize("theirs", ["00" * 32, "01" + "00" * 31, "zz" * 32, "ab" * 31, ""])
def test_a_half_that_would_make_the_secret_known_is_refused(gateway, theirs):
    """A point of low order, or none: no key comes of it even under a right signature."""
    codec = GatewayCodec(account="main", secret=SECRET, now_s=lambda: START_S, nonce=lambda: f"nonce{next(NONCES)}")
    gateway.terminals.rotate = lambda terminal, ours: theirs
    half = Agreement()
    request = codec.rotate_request("T10001", half)
    verdict = codec.new_key(half, reply_of(gateway.exchange(request.method, request.path, request.headers, request.body)))
    assert (verdict.word, verdict.health) == ("unknown", "lying")


@pytest.mark.parametrize("kind", ["lying", "unsigned", "other_nonce", "garbage", "page", "truncated", "down"])
def test_no_unproven_key_is_kept(gateway, key_file, kind):
    gateway.fault(kind, call="rotate")
    assert booted(gateway, key_file, "rotate") == [False]
    assert keys_in(key_file) == (SECRET, b"")


def test_a_disk_that_refuses_leaves_the_old_key_in_use(gateway, key_file, monkeypatch):
    def full(*_):
        raise OSError("no room")
    monkeypatch.setattr(private_file.os, "fsync", full)
    *done, said = booted(gateway, key_file, "rotate", "query", "query", "health")
    assert done == [False, Said.ABSENT, Said.ABSENT]
    assert gateway.first.secret == SECRET == keys_in(key_file)[0]
    assert [word for word, _ in said] == ["key"] and "no room" in said[0][1]         # said once, and no `ok` hides it
    monkeypatch.undo()
    *done, said = booted(gateway, key_file, "rotate", "query", "health")
    assert (done, said) == ([True, Said.ABSENT], [("ok", "")])


def test_the_complaint_is_over_once_a_key_could_be_kept(gateway, key_file, monkeypatch):
    real, fails = private_file.replace, [OSError(28, "No space left on device", "/card/terminal.key")]
    monkeypatch.setattr(private_file, "replace", lambda *a: (_ for _ in ()).throw(fails.pop()) if fails else real(*a))
    *done, said = booted(gateway, key_file, "query", "rotate", "query", "rotate", "query", "health")
    assert done == [Said.ABSENT, False, Said.ABSENT, True, Said.ABSENT]
    assert [word for word, _ in said] == ["ok", "key", "ok"]
    assert said[1][1] == ("the gateway's new key cannot be written, so the old one goes on "
                          "(/card/terminal.key: No space left on device)")


def test_a_gateway_that_forgot_the_new_key_is_met_with_the_old(gateway, key_file):
    assert booted(gateway, key_file, "rotate") == [True]
    gateway.first.nexts.clear()
    assert booted(gateway, key_file, "query", "query") == [Said.UNKNOWN, Said.ABSENT]


def test_the_rotation_is_the_drivers_own_and_ends_with_it(key_file):
    class Watched(rotation.GatewayChannel):
        async def rotate(self):
            turned.set()
            return True

    async def run():
        channel = Watched(GatewayCodec(account="main", secret=SECRET, now_s=lambda: 0, nonce=lambda: "n"),
                          terminal_id="T10001", key_file=PlainFile(key_file), held=Held(SECRET), base_url="http://127.0.0.1:1")
        reader = asyncio.create_task(anext(channel.inputs(), None))
        await asyncio.wait_for(turned.wait(), 5)
        names = {task.get_name() for task in asyncio.all_tasks()}
        await channel.close()
        await reader
        await asyncio.sleep(0)
        return names, {task.get_name() for task in asyncio.all_tasks()}

    turned = asyncio.Event()
    during, after = asyncio.run(run())
    assert "gateway key rotation" in during and "gateway key rotation" not in after


def test_a_late_401_of_the_old_key_does_not_bring_it_back(gateway):
    codec = GatewayCodec(account="main", secret=SECRET, now_s=lambda: START_S, nonce=lambda: f"nonce{next(NONCES)}")
    late = codec.request(QueryOrder(TEA))
    codec.use(b"f" * 64, SECRET)
    gateway.first.secret = b"f" * 64
    answer = gateway.exchange(late.method, late.path, late.headers, late.body)
    codec.read(QueryOrder(TEA), reply_of(answer))
    assert (answer.status, codec.secret) == (401, b"f" * 64)


def test_a_box_starts_from_its_key_file_and_leaves_a_configured_secret_alone(key_file):
    given = {"account": "main", "terminal_id": "T10001", "private_key_file": str(key_file), "base_url": "http://127.0.0.1:1",
             "dialect": "tillbox"}
    key_file.write_bytes(b"f" * 64 + b"\n" + SECRET + b"\n")
    from_file = KeySet(terminal=PlainFile(key_file))
    driver = CHANNELS["gateway"](SimpleNamespace(**given), from_file, SystemWall())
    assert isinstance(driver, rotation.GatewayChannel)
    assert (driver._codec.secret, driver._codec._other) == (b"f" * 64, SECRET)
    assert type(CHANNELS["gateway"](SimpleNamespace(**given), KeySet(secret=SECRET.decode()), SystemWall())) is HttpsChannel
    with pytest.raises(DriverGone, match="tillbox gateway activate"):
        CHANNELS["gateway"](SimpleNamespace(**given), KeySet(terminal=PlainFile(str(key_file) + "?")), SystemWall())
    with pytest.raises(ValueError, match="terminal_id is missing"):
        CHANNELS["gateway"](SimpleNamespace(**given | {"terminal_id": ""}), from_file, SystemWall())
    key_file.write_bytes(held_text(Held(SECRET, notes={"terminal": "T10002"})))
    with pytest.raises(DriverGone, match="box.toml names terminal T10001.*that of T10002"):
        CHANNELS["gateway"](SimpleNamespace(**given), from_file, SystemWall())


@pytest.mark.parametrize("held", [b"a" * 31, b"a" * 40 + b" " + b"b" * 40, bytes(range(32)),
                                  b"\n".join(c * 40 for c in (b"a", b"b", b"c"))])
def test_what_is_no_key_is_refused_and_not_cut(held):
    with pytest.raises(ValueError, match="printable"):
        held_of(held)


def test_keys_and_notes_stand_a_line_each_and_outlive_a_rotation(gateway, key_file):
    held = Held(b"a" * 64, b"b" * 64, {"terminal": "T10001", "wallets": "wechat ecny"})
    assert held_text(held) == b"a" * 64 + b"\n" + b"b" * 64 + b"\nterminal T10001\nwallets wechat ecny\n"
    assert held_of(held_text(held)) == held and held_of(b"") == Held() and held_of(SECRET) == Held(SECRET)
    key_file.write_bytes(held_text(Held(SECRET, notes=held.notes)))
    assert booted(gateway, key_file, "rotate") == [True]
    assert held_of(key_file.read_bytes()).notes == held.notes
