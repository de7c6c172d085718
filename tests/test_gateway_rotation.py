"""The terminal's key changes without a moment in which box and gateway hold no key in common."""

from __future__ import annotations

import asyncio
import itertools
from types import SimpleNamespace

import pytest

from device.drivers import channel_gateway_rotation as rotation
from device.drivers import private_file
from device.drivers.channel_bytes import Reply
from device.drivers.channel_gateway import GatewayCodec
from device.drivers.channel_https import HttpsChannel
from device.drivers.private_file import PlainFile
from device.drivers.registry import CHANNELS
from device.errors import DriverGone
from device.txn.effects import QueryOrder
from device.txn.inputs import Said
from sim.channels.gateway import GatewayRules
from sim.channels.gateway_server import GatewayServer
from tests.test_channel_gateway import SECRET, START_S, TEA

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
    return rotation.keys_of(file.read_bytes())


def booted(server, key_file, *steps):
    """What a box that starts from its key file answers to `steps`: `rotate`, or `query`."""
    async def run():
        newest, older = keys_in(key_file)
        codec = GatewayCodec(account="main", secret=newest, older=older, now_s=lambda: START_S,
                             nonce=lambda: f"nonce{next(NONCES)}")
        channel = rotation.GatewayChannel(codec, terminal_id="T10001", key_file=PlainFile(key_file), base_url=server.url)
        try:
            return [await channel.rotate() if step == "rotate" else (await channel.do(QueryOrder(TEA))).said for step in steps]
        finally:
            await channel.close()
    return asyncio.run(run())


def test_the_old_key_dies_with_the_first_use_of_the_new(gateway, key_file):
    assert booted(gateway, key_file, "rotate") == [True]
    newest, older = keys_in(key_file)
    assert (older, key_file.stat().st_mode & 0o777) == (SECRET, 0o600)
    assert (gateway.secret, gateway.next_secret) == (SECRET, newest)        # not used yet: both are good
    assert booted(gateway, key_file, "query", "rotate", "query") == [Said.ABSENT, True, Said.ABSENT]
    assert keys_in(key_file) == (gateway.secret, newest)


def test_a_lost_answer_heals_and_gives_the_same_key(gateway, key_file):
    gateway.fault("lost_answer", call="rotate", count=2)
    assert booted(gateway, key_file, "rotate", "rotate", "query") == [False, False, Said.ABSENT]
    promised = gateway.next_secret
    assert booted(gateway, key_file, "rotate", "query") == [True, Said.ABSENT]
    assert gateway.secret == promised == keys_in(key_file)[0]


@pytest.mark.parametrize("kind", ["lying", "unsigned", "other_nonce", "garbage", "page", "truncated", "down"])
def test_no_unproven_key_is_kept(gateway, key_file, kind):
    gateway.fault(kind, call="rotate")
    assert booted(gateway, key_file, "rotate") == [False]
    assert keys_in(key_file) == (SECRET, b"")


def test_a_disk_that_refuses_leaves_the_old_key_in_use(gateway, key_file, monkeypatch):
    def full(*_):
        raise OSError("no room")
    monkeypatch.setattr(private_file.os, "fsync", full)
    assert booted(gateway, key_file, "rotate", "query") == [False, Said.ABSENT]
    assert gateway.secret == SECRET == keys_in(key_file)[0]


def test_a_gateway_that_forgot_the_new_key_is_met_with_the_old(gateway, key_file):
    assert booted(gateway, key_file, "rotate") == [True]
    gateway.next_secret = b""
    assert booted(gateway, key_file, "query", "query") == [Said.UNKNOWN, Said.ABSENT]


def test_the_rotation_is_the_drivers_own_and_ends_with_it(key_file):
    class Watched(rotation.GatewayChannel):
        async def rotate(self):
            turned.set()
            return True

    async def run():
        channel = Watched(GatewayCodec(account="main", secret=SECRET, now_s=lambda: 0, nonce=lambda: "n"),
                          terminal_id="T10001", key_file=PlainFile(key_file), base_url="http://127.0.0.1:1")
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
    gateway.secret = b"f" * 64
    answer = gateway.exchange(late.method, late.path, late.headers, late.body)
    codec.read(QueryOrder(TEA), Reply(answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.body))
    assert (answer.status, codec.secret) == (401, b"f" * 64)


def test_a_box_starts_from_its_key_file_and_leaves_a_configured_secret_alone(key_file):
    given = {"account": "main", "terminal_id": "T10001", "secret": "", "private_key_file": str(key_file), "ca_file": "",
             "client_cert_file": "", "base_url": "http://127.0.0.1:1"}
    key_file.write_bytes(b"f" * 64 + b"\n" + SECRET + b"\n")
    driver = CHANNELS["gateway"](SimpleNamespace(**given))
    assert isinstance(driver, rotation.GatewayChannel)
    assert (driver._codec.secret, driver._codec._other) == (b"f" * 64, SECRET)
    assert type(CHANNELS["gateway"](SimpleNamespace(**given | {"secret": SECRET.decode()}))) is HttpsChannel
    for missing in ({"terminal_id": ""}, {"private_key_file": ""}, {"private_key_file": str(key_file) + "?"}):
        with pytest.raises(DriverGone):
            CHANNELS["gateway"](SimpleNamespace(**given | missing))


@pytest.mark.parametrize("held", [b"a" * 31, b"a" * 40 + b" " + b"b" * 40, bytes(range(32)),
                                  b"\n".join(c * 40 for c in (b"a", b"b", b"c"))])
def test_what_is_no_key_is_refused_and_not_cut(held):
    with pytest.raises(ValueError, match="printable"):
        rotation.keys_of(held)


def test_a_key_and_the_one_before_stand_a_line_each():
    assert rotation.keys_of(b"a" * 64 + b"\n" + b"b" * 64 + b"\n") == (b"a" * 64, b"b" * 64) and rotation.keys_of(b"") == (b"", b"")
