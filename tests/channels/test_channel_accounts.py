"""Whose keys a request goes out with: those of the account its intent was made under, through every change of configuration."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import re
import socket
import time

import msgspec
import pytest

from device.box import Box
from device.config import account_of, to_terms
from device.daemon import Daemon
from device.drivers.channels.accounts import ChannelAccounts
from device.drivers.channels.terminal_bytes import Held, held_of, held_text
from device.drivers.registry import drivers_of
from device.store_forward.journal import Journal
from device.txn.effects import CloseOrder, FetchBill, PlaceOrder, QueryOrder, RefundOrder
from device.txn.inputs import ChannelSaid, Configured, Pressed, QrReady, RefundWord, Said, Scanned, Started
from device.types import Stamp
from sim.channels.gateway import GatewayRules
from sim.channels.gateway_server import GatewayServer
from sim.channels.keys import key_pair, platform
from sim.channels.tls import tls_room
from sim.channels.wechat import WechatRules
from sim.channels.wechat_server import WechatServer
from tests.counter import TEA
from tests.sealed_box import SealedBox, command

A, B = "1900000001", "1900000002"


@pytest.fixture(scope="module")
def world():
    """Two merchants' keys, a third key for the first, and what WeChat signs with."""
    return {"a": key_pair("a"), "b": key_pair("b"), "next": key_pair("next"), "theirs": platform()}


def wechat(mchid, pair, theirs, tls=None):
    """WeChat towards one merchant, listening."""
    server = WechatServer(WechatRules(lambda: time.time_ns() // 1_000_000, mchid=mchid), merchant_public_pem=pair.public_pem,
                          merchant_serial=pair.serial_no, platform=theirs, tls=tls)
    server.start()
    return server


class Shop:
    """A sealed box and WeChat towards both of its merchants; `servers` by merchant number."""

    def __init__(self, folder, world):
        self.world = world
        (folder / "platform.pem").write_bytes(world["theirs"].public.public_pem)
        self.servers = {mchid: wechat(mchid, world[which], world["theirs"]) for mchid, which in ((A, "a"), (B, "b"))}
        self.box = SealedBox(folder)
        self.configured(A)

    def configured(self, mchid, **more):
        """box.toml now names this merchant, `main` like every other."""
        which = self.world["a" if mchid == A else "b"]
        return self.box.configure(**{"mchid": mchid, "base_url": self.servers[mchid].url, "serial_no": which.serial_no,
                                     "platform_key_id": self.world["theirs"].key_id, **more})

    def imported(self, which, *more):
        pair = self.world[which]
        assert self.box.keys("import", "wechat", "private_key", "-", "--serial", pair.serial_no, *more,
                             given=pair.private_pem)[0] == 0

    def answers(self, *effects):
        """What a box that starts now answers."""
        return started(self.box, *effects)

    def heads(self, mchid):
        """(call, path, body) of what this merchant's server has seen, oldest first."""
        return [(seen.call, seen.path, seen.body) for seen in self.servers[mchid].seen]


def started(box, *effects, channel="wechat"):
    async def run():
        driver = drivers_of(box.config, lambda symbol: None, box.store)[f"channel:{channel}"]
        try:
            return [await driver.do(effect) for effect in effects]
        finally:
            await driver.close()
    return asyncio.run(run())


@pytest.fixture
def shop(tmp_path, world):
    made = Shop(tmp_path, world)
    yield made
    for server in made.servers.values():
        server.stop()


class Till:
    """The real box over a journal on disk, from which every start goes on; its channel's answers come by hand."""

    def __init__(self, shop):
        self.shop, self.boots = shop, 0
        self.start()

    def start(self):
        self.boots += 1
        self.journal = Journal(self.shop.box.state / "journal.db", identity={"box": "box-1", "mode": "real"})
        self.box = Box(self.journal)
        return self.tell(Started(f"b{self.boots}", "test", to_terms(self.shop.box.config), "MDAwMDAwMDAwMDAwMDAwMA", "kid"))

    def stop(self):
        self.journal.close()

    def tell(self, event):
        now = datetime.datetime.now().astimezone().isoformat(timespec="milliseconds")
        return self.box.handle(event, Stamp(f"b{self.boots}", 1000, now, "ntp"))[1]

    def one(self, kind, *events):
        found = [effect for event in events for effect in self.tell(event) if isinstance(effect, kind)]
        assert len(found) == 1, found
        return found[0]


def test_a_second_try_after_a_pushed_configuration_is_the_same_bytes_under_the_same_key(shop):
    """The first try leaves, its answer is lost, another merchant is configured, and the box starts anew."""
    shop.imported("a")
    till = Till(shop)
    first = till.one(PlaceOrder, Scanned(TEA.item.gtin, TEA), Pressed("PAY"))
    shop.servers[A].fault("lost_answer", call="create")
    assert shop.answers(first)[0].said is Said.UNKNOWN

    shop.configured(B, appid="wx0000000000000002", notify_url="https://elsewhere.example/n")
    shop.imported("b")
    till.tell(Configured(to_terms(shop.box.config)))
    till.stop()
    again = next(effect for effect in till.start() if isinstance(effect, PlaceOrder))
    assert again == first and again.intent.account.fields != account_of(shop.box.config.channels[0]).fields
    assert isinstance(shop.answers(again)[0], QrReady)
    (_, _, one), (_, _, other) = shop.heads(A)
    assert one == other and A.encode() in one and b"elsewhere" not in other
    assert shop.heads(B) == []
    till.stop()


def test_the_next_customer_pays_the_new_merchant_while_the_last_ones_order_ends_at_the_old(shop):
    shop.imported("a")
    till = Till(shop)
    old = till.one(PlaceOrder, Scanned(TEA.item.gtin, TEA), Pressed("PAY"))
    qr = shop.answers(old)[0]
    till.tell(qr)
    shop.servers[A].scan(qr.qr, "pay")
    shop.configured(B)
    shop.imported("b")
    paid = shop.answers(QueryOrder(old.intent))[0]
    assert (paid.said, paid.amount_fen) == (Said.PAID, TEA.item.price_fen)
    till.tell(paid)
    till.tell(Configured(to_terms(shop.box.config)))
    new = till.one(PlaceOrder, Scanned(TEA.item.gtin, TEA), Pressed("PAY"))
    assert dict(new.intent.account.fields)["mchid"] == B and isinstance(shop.answers(new)[0], QrReady)
    assert [call for call, *_ in shop.heads(B)] == ["create"]
    till.stop()


def test_a_refund_of_an_old_sale_goes_to_the_merchant_that_was_paid(shop):
    shop.imported("a")
    till = Till(shop)
    order = till.one(PlaceOrder, Scanned(TEA.item.gtin, TEA), Pressed("PAY"))
    qr = shop.answers(order)[0]
    till.tell(qr)
    shop.servers[A].scan(qr.qr, "pay")
    till.tell(shop.answers(QueryOrder(order.intent))[0])
    shop.configured(B)
    shop.imported("b")
    till.stop()
    till.start()
    refund = till.one(RefundOrder, Pressed("REFUND"), Scanned(order.intent.order_no), Pressed("ENTER"))
    assert shop.answers(refund)[0].word in (RefundWord.PROCESSING, RefundWord.DONE)
    assert [call for call, *_ in shop.heads(A)] == ["create", "query", "refund"] and shop.heads(B) == []
    assert [r.refund_no for o in shop.servers[A].rules._orders.values() for r in o.refunds] == [refund.intent.refund_no]
    till.stop()


def test_an_account_whose_keys_are_not_here_stays_unknown_and_sends_nothing(shop):
    """It may have been paid: only its own keys can tell."""
    shop.imported("a")
    order = intent_of(shop)
    shop.configured(B)
    shop.imported("b")
    stranger = msgspec.structs.replace(order, account=msgspec.structs.replace(order.account, fields=(("mchid", "1900000009"),)))
    for effect in (PlaceOrder(stranger), QueryOrder(stranger), CloseOrder(stranger)):
        said = shop.answers(effect)[0]
        assert (said.said, said.detail) == (Said.UNKNOWN, "no key here for the account this was made under")
    assert shop.heads(A) == shop.heads(B) == []
    shop.box.seal.write_bytes(b"f" * 64)                     # and one whose keys are, behind a sealing key that is lost
    shop.box.configure("gateway", terminal_id="T1", secret="f" * 64)
    said = shop.answers(PlaceOrder(order))[0]
    assert said.said is Said.UNKNOWN and "stays closed" in said.detail and shop.heads(A) == []


def intent_of(shop):
    till = Till(shop)
    order = till.one(PlaceOrder, Scanned(TEA.item.gtin, TEA), Pressed("PAY")).intent
    till.stop()
    return order


def test_a_channel_that_is_taken_out_of_box_toml_still_ends_its_orders(shop):
    shop.imported("a")
    order = intent_of(shop)
    shop.box.configure("gateway", terminal_id="T1", secret="f" * 64)
    drivers = drivers_of(shop.box.config, lambda symbol: None, shop.box.store)
    assert set(drivers) == {"channel:gateway", "channel:wechat"} and isinstance(drivers["channel:wechat"], ChannelAccounts)
    assert isinstance(shop.answers(PlaceOrder(order))[0], QrReady)
    assert set(drivers_of(shop.box.config, lambda symbol: None)) == {"channel:gateway"}       # a box to practise on has none


def test_the_old_accounts_line_has_its_own_certificate_and_roots(tmp_path, world):
    """WeChat knows a reversal's merchant by the certificate on the line: today's would be another's."""
    room = tls_room(client=A)
    (tmp_path / "platform.pem").write_bytes(world["theirs"].public.public_pem)
    (tmp_path / "ca.pem").write_bytes(room.ca_pem)
    server = wechat(A, world["a"], world["theirs"], room.server_context(client="required"))
    try:
        box = SealedBox(tmp_path, mchid=A, base_url=server.url, serial_no=world["a"].serial_no, ca_file=str(tmp_path / "ca.pem"),
                        platform_key_id=world["theirs"].key_id)
        for kind, held in (("private_key", world["a"].private_pem), ("client_cert", room.client_pem)):
            assert box.keys("import", "wechat", kind, "-", given=held)[0] == 0
        order = intent_of(type("", (), {"box": box}))
        (tmp_path / "ca.pem").unlink()
        box.configure(mchid=B, private_key_file=str(tmp_path / "b.pem"))
        (tmp_path / "b.pem").write_bytes(world["b"].private_pem)
        assert isinstance(started(box, PlaceOrder(order))[0], QrReady)
    finally:
        server.stop()


@pytest.mark.parametrize("training, made", [("false", True), ("true", False)])
def test_the_daemon_itself_opens_what_is_sealed_and_one_to_practise_on_does_not(shop, training, made):
    shop.imported("a")
    shop.configured(A, top=f"training = {training}")
    daemon = Daemon(shop.box.config)
    try:
        assert isinstance(daemon.runner.drivers.get("channel:wechat"), ChannelAccounts) is made
    finally:
        daemon.journal.close()


# Two keys of one account

@contextlib.contextmanager
def switched(server, pair):
    """The channel takes this key from here on, and the one before no more."""
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    server._merchant, server._merchant_serial = load_pem_public_key(pair.public_pem), pair.serial_no
    yield


def test_while_a_key_changes_the_box_sells_with_the_one_the_channel_takes(shop):
    shop.imported("a")
    shop.imported("next")                                    # sealed days before WeChat takes it
    order = intent_of(shop)
    early = shop.answers(PlaceOrder(order), PlaceOrder(order))
    assert (early[0].said, "other key is next" in early[0].detail) == (Said.UNKNOWN, True)
    assert isinstance(early[1], QrReady)
    with switched(shop.servers[A], shop.world["next"]):
        assert shop.answers(QueryOrder(order))[0].said is Said.OPEN
        shop.box.keys("drop", f"wechat/main/{A}", "private_key", "1")
        assert shop.answers(QueryOrder(order))[0].said is Said.OPEN
    first, second, *_ = shop.heads(A)
    assert first == second                                   # the same bytes; only the signature is another's


def test_after_its_overlap_the_older_key_is_not_tried_any_more(shop):
    shop.imported("a")
    shop.imported("next", "--overlap", "0")
    c = shop.box.config.channels[0]
    today = datetime.date.today()                            # noqa: DTZ011
    tomorrow = (today + datetime.timedelta(days=1)).isoformat()
    assert [k.serial_no for k in shop.box.store.sets(c, b"", "", today.isoformat())] == [
        shop.world["next"].serial_no, shop.world["a"].serial_no]
    assert [k.serial_no for k in shop.box.store.sets(c, b"", "", tomorrow)] == [shop.world["next"].serial_no]


def test_a_lone_key_that_is_refused_is_said_as_it_is(shop):
    shop.imported("next")
    assert re.match("WeChat does not accept our signature", shop.answers(PlaceOrder(intent_of(shop)))[0].detail)


# The gateway's terminal

def test_a_terminals_key_is_sealed_changes_by_itself_and_outlives_its_terminal(tmp_path):
    """Activated by a code, rotated, then given up for another terminal: the old one's order still ends under its own key."""
    server = GatewayServer(GatewayRules(lambda: time.time_ns() // 1_000_000), secret=b"0123456789abcdef0123456789abcdef")
    server.start()

    async def rotated():
        driver = drivers_of(box.config, lambda symbol: None, box.store)["channel:gateway"]
        try:
            return await driver._first.rotate()
        finally:
            await driver.close()

    def activated(*more):
        return command("gateway", "activate", server.activation_code(), "--config", str(box.toml), *more)[0]
    try:
        box = SealedBox(tmp_path)
        box.configure("gateway", base_url=server.url)
        assert activated() == 0 and box.config.channels[0].terminal_id == "T10002"
        first = terminal_keys(box)
        assert asyncio.run(rotated()) and terminal_keys(box).older == first.newest != terminal_keys(box).newest
        on_disk = b"".join(f.read_bytes() for f in box.state.rglob("*") if f.is_file())
        assert first.newest not in on_disk and not list(box.state.glob("gateway.key*"))
        order = intent_of(type("", (), {"box": box}))
        assert activated() == 1 and activated("--again") == 0
        assert box.config.channels[0].terminal_id == "T10003" and terminal_keys(box).newest != first.newest
        for _ in range(2):
            assert isinstance(started(box, PlaceOrder(order), channel="gateway")[0], QrReady)
        assert {seen.status for seen in server.seen if seen.call == "place"} == {200}
        assert dict(order.account.fields) == {"terminal_id": "T10002"}
    finally:
        server.stop()


def terminal_keys(box):
    name = box.store.terminal(box.config.channels[0])
    return held_of(box.store.read(name).value)


def test_a_terminals_key_that_lay_plain_goes_in_with_its_notes_and_a_running_box_keeps_its_own(tmp_path):
    box = SealedBox(tmp_path)
    box.configure("gateway")
    for terminal in ("T2", "T3"):
        plain = held_text(Held(terminal.encode() * 32, notes={"terminal": terminal}))
        assert box.keys("import", "gateway", "terminal_key", "-", given=plain)[0] == 0
    assert box.config.channels[0].terminal_id == "T3"        # the one that came last
    assert box.keys("import", "gateway", "terminal_key", "-", given=b"f" * 64)[0] == 0
    assert [(n.holder, n.version) for n in box.store.names() if n.kind == "terminal_key"] == [("T2", 1), ("T3", 3)]
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(tmp_path / "run" / "daemon.sock"))
        daemon.listen()
        status, _, err = box.keys("import", "gateway", "terminal_key", "-", given=b"f" * 64)
    assert status == 1 and "stop it first" in err


def test_another_day_of_the_old_account_is_read_from_its_own_bill(shop):
    shop.imported("a")
    account = account_of(shop.box.config.channels[0])
    shop.configured(B)
    shop.imported("b")
    said = shop.answers(FetchBill(account, "2020-01-01"))[0]
    assert [call for call, *_ in shop.heads(A)] == ["bill"] and shop.heads(B) == [] and said.day == "2020-01-01"


def test_what_the_channel_says_of_an_order_names_no_secret(shop):
    shop.imported("a")
    said = shop.answers(QueryOrder(intent_of(shop)))[0]
    assert isinstance(said, ChannelSaid) and "PRIVATE" not in repr(said)
    sets = shop.box.store.sets(shop.box.config.channels[0], b"", "")
    assert "PRIVATE" not in repr(sets) and "PRIVATE" not in str(shop.box.store.__dict__)
