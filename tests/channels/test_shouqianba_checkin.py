"""Shouqianba's key of the day over a real line: fetched once, kept before it is used, not lost twice; and a box's first key."""

from __future__ import annotations

import asyncio
import datetime
from types import SimpleNamespace

import msgspec
import pytest

from device.config import parse, parse_toml, to_terms
from device.drivers import private_file
from device.drivers.channels import shouqianba_checkin as checkin
from device.drivers.channels.accounts import KeySet
from device.drivers.channels.shouqianba import ShouqianbaCodec
from device.drivers.channels.terminal_bytes import Held, held_of, held_text
from device.drivers.private_file import PlainFile
from device.drivers.registry import CHANNELS, SystemWall, drivers_of
from device.gateway import with_terminal
from device.ruled import ruled
from device.txn.effects import ChargeCode, FetchBill, QueryOrder
from device.txn.inputs import DeviceSaid, Said
from device.types import Account
from sim.channels.shouqianba import ShouqianbaRules
from sim.channels.shouqianba_server import KEY, ShouqianbaServer, md5
from tests.channels.test_channel_shouqianba import SHOWN, SN, START_S, TEA
from tests.channels.test_gateway_activation import Box
from tests.house.test_config import BOX, reason

TODAY, DAY_S = "2026-11-18", 86_400


class Far:
    """The server, its clock, and a box's key file that was last used yesterday."""

    def __init__(self, folder) -> None:
        self.now_s = float(START_S)
        self.server = ShouqianbaServer(ShouqianbaRules(lambda: int(self.now_s * 1000)), now_s=lambda: self.now_s)
        self.server.first.day = "2026-11-17"
        self.file = folder / "gateway.key"
        self.file.write_bytes(held_text(Held(KEY, notes={"terminal": SN, "device": "corner-1", "day": "2026-11-17"})))
        self.server.start()

    @property
    def held(self):
        return held_of(self.file.read_bytes())

    def run(self, story):
        """`story(channel)` with a channel that starts from the key file."""
        async def played():
            held = self.held
            channel = checkin.ShouqianbaChannel(
                ShouqianbaCodec(account="main", key=held.newest), terminal_id=SN, key_file=PlainFile(self.file), held=held,
                now_s=lambda: self.now_s, base_url=self.server.url, connect_s=2, read_s=2)
            try:
                return await story(channel)
            finally:
                await channel.close()
        return asyncio.run(played())

    def asked(self, *words):
        """The words that `query` gets, one after the other, by one box that is then switched off; `again` lets a minute pass."""
        async def story(channel):
            said = []
            for word in words:
                if word == "query":
                    said.append((await channel.do(QueryOrder(TEA))).said)
                else:
                    channel._again_s = channel._doubt_s = 0.0
            return said
        return self.run(story)

    @property
    def calls(self):
        return [seen.call for seen in self.server.seen]


@pytest.fixture
def far(tmp_path):
    far = Far(tmp_path)
    yield far
    far.server.stop()


def test_the_first_call_of_a_day_checks_in_and_no_other(far):
    assert far.asked("query", "query") == [Said.ABSENT] * 2 and far.calls == ["checkin", "query", "query"]
    assert (far.held.newest, far.held.older, far.held.notes["day"]) == (far.server.first.key, KEY, TODAY)
    assert far.file.stat().st_mode & 0o777 == 0o600
    assert far.asked("query") == [Said.ABSENT] and far.calls[3:] == ["query"]          # a restart is no new day
    far.now_s += DAY_S
    assert far.asked("query") == [Said.ABSENT] and far.calls[4:] == ["checkin", "query"]


def test_midnight_in_beijing_changes_the_key_under_a_running_box(far):
    far.now_s = datetime.datetime.fromisoformat("2026-11-18T23:59:59+08:00").timestamp()

    async def story(channel):
        before = await channel.do(QueryOrder(TEA))
        old = far.held.newest
        far.now_s += 2
        after = await channel.do(QueryOrder(TEA))
        return before.said, after.said, old, far.held
    before, after, old, held = far.run(story)
    assert (before, after, held.older, held.notes["day"]) == (Said.ABSENT, Said.ABSENT, old, "2026-11-19")
    assert held.newest == far.server.first.key and far.calls == ["checkin", "query"] * 2


def test_the_new_key_is_on_the_card_before_its_first_use(far):
    held_then = []
    rules_say = far.server.rules_say

    def watching(ask):
        held_then.append((ask.call, ask.headers["authorization"].split()[1] == md5(ask.body + far.held.newest)))
        return rules_say(ask)
    far.server.rules_say = watching
    assert far.asked("query") == [Said.ABSENT]
    assert held_then == [("checkin", True), ("query", True)]


@pytest.mark.parametrize("kind", ["lost_answer", "truncated"])
def test_a_lost_answer_is_asked_for_again_with_the_old_key_once_the_line_lives(far, kind):
    far.server.fault(kind, call="checkin")
    assert far.asked("query") == [Said.UNKNOWN] and far.held.newest == KEY and far.held.notes["asked"]
    far.server.fault("lost_answer", count=None)                     # a line that takes and gives nothing must not cost the last try
    assert far.asked("query", "again", "query") == [Said.UNKNOWN] * 2
    assert "checkin" not in far.calls[2:] and far.server.first.before == KEY
    far.server.clear()
    assert far.asked("query") == [Said.ABSENT]
    assert far.held.newest == far.server.first.key and "asked" not in far.held.notes


def test_an_answer_lost_twice_is_said_and_ends_with_support(far):
    far.server.fault("lost_answer", call="checkin", count=2)
    assert far.asked("query", "again", "query") == [Said.UNKNOWN] * 2

    async def story(channel):
        said = await channel.do(QueryOrder(TEA))
        return said.said, [(one.word, one.why) for one in channel.health._waiting]
    said, health = far.run(story)
    assert said is Said.UNKNOWN and [word for word, _ in health] == ["key"] and "activate it with a fresh code" in health[0][1]
    assert far.held.newest == KEY


@pytest.mark.parametrize("kind", ["down", "busy", "system_error", "maintenance", "page", "garbage", "wrong_amount", "wrong_order",
                                  "redirect"])
def test_an_answer_that_brings_no_key_leaves_the_old_one_in_use(far, kind):
    far.server.fault(kind, call="checkin")
    assert far.asked("query")[0] is Said.UNKNOWN                                # yesterday's key, or one that died meanwhile
    assert far.held.newest == KEY
    assert far.asked("query") == [Said.ABSENT] and far.held.newest == far.server.first.key


def test_where_the_old_key_stays_good_for_a_while_it_sells_on(far):
    """A newer page of theirs says that the last key stays valid: a check-in without an answer then costs nothing."""
    far.server.terminals.overlap = True
    far.server.fault("lost_answer", call="checkin")
    assert far.asked("query") == [Said.ABSENT] and far.held.newest == KEY


def test_a_full_card_costs_no_key_and_is_said(far, monkeypatch):
    def full(path, held):
        raise OSError(28, "No space left on device", str(path))
    monkeypatch.setattr(private_file, "replace", full)

    async def story(channel):
        await channel.do(QueryOrder(TEA))
        return list(channel.health._waiting)
    said = far.run(story)
    assert "checkin" not in far.calls and far.server.first.key == KEY
    assert ("key", True) in [(one.word, "No space left on device" in one.why) for one in said]


def test_a_card_that_fills_up_just_then_sells_until_the_box_is_off(far, monkeypatch):
    real, writes = private_file.replace, []

    def once(path, held):
        writes.append(held)
        if len(writes) == 2:
            raise OSError(28, "No space left on device", str(path))
        real(path, held)
    monkeypatch.setattr(private_file, "replace", once)

    async def story(channel):
        return [(await channel.do(QueryOrder(TEA))).said for _ in range(2)], list(channel.health._waiting)
    said, health = far.run(story)
    assert said == [Said.ABSENT] * 2
    assert [one.word for one in health] == ["key"] and "do not switch this box off" in health[0].why
    monkeypatch.undo()
    assert far.held.newest == KEY and far.asked("query") == [Said.ABSENT]       # by the one retry that the old key has


def test_a_key_refused_in_the_middle_of_the_day_is_fetched_anew_once(far):
    assert far.asked("query") == [Said.ABSENT]
    far.server.terminals.check_in(far.server.first, far.server.first.key, b'{"device_id":"corner-1"}')      # somebody else did
    assert far.asked("query", "query") == [Said.UNKNOWN, Said.ABSENT]
    assert far.held.newest == far.server.first.key
    far.server.fault("old_key", call="query", count=None)
    before = far.calls.count("checkin")
    assert far.asked("query", "query", "query", "query") == [Said.UNKNOWN] * 4
    assert far.calls.count("checkin") == before + 1                              # not at every call


def test_nobody_who_waits_for_the_check_in_can_lose_its_key(far):
    """The core takes a query back while the check-in that it waits for is under way."""
    far.server.fault("slow", call="checkin", seconds=0.2)

    async def story(channel):
        waiting = asyncio.create_task(channel.do(QueryOrder(TEA)))
        await asyncio.sleep(0)
        assert channel._check is not None and not channel._check.done()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        return (await channel.do(QueryOrder(TEA))).said
    assert far.run(story) is Said.ABSENT
    assert far.calls == ["checkin", "query"] and far.held.newest == far.server.first.key


def test_a_check_in_waits_for_calls_under_way(far):
    assert far.asked("query") == [Said.ABSENT]
    far.server.fault("slow", call="query", seconds=0.2)

    async def story(channel):
        arrived, loop, rules_say = asyncio.Event(), asyncio.get_running_loop(), far.server.rules_say

        def telling(ask):
            say = rules_say(ask)
            loop.call_soon_threadsafe(arrived.set)
            return say
        far.server.rules_say = telling
        early = asyncio.create_task(channel.do(QueryOrder(TEA)))
        await arrived.wait()
        far.now_s += DAY_S
        return (await channel.do(QueryOrder(TEA))).said, early.done(), (await early).said
    assert far.run(story) == (Said.ABSENT, True, Said.ABSENT)


def test_a_code_that_waited_too_long_is_not_charged(far, monkeypatch):
    monkeypatch.setattr(checkin, "CHARGE_WAITS_S", -1)
    code = far.server.code()

    async def story(channel):
        return await channel.do(ChargeCode(SHOWN, code))
    said = far.run(story)
    assert said.said is Said.REFUSED and "not charged" in said.detail and not far.server.orders()


def test_the_day_begins_while_nobody_buys(far):
    async def story(channel):
        inputs = channel.inputs()
        return await asyncio.wait_for(anext(inputs), 5)
    assert far.run(story) == DeviceSaid("channel:gateway", "ok") and far.calls == ["checkin"]


# From the configuration to a driver, and the first key

GATEWAY = {"base_url": "https://vsi-api.shouqianba.com", "dialect": "shouqianba", "terminal_id": SN}


def test_the_configuration_makes_terms_that_know_the_dialect():
    terms = to_terms(config := parse(BOX | {"channel": {"gateway": GATEWAY}}))
    assert terms.accounts == (Account("gateway", "main", (("dialect", "shouqianba"), ("terminal_id", SN))),)
    assert (terms.gateway_wallets, terms.gateway_qr) == (("wechat", "alipay", "unionpay"), "wechat")
    assert terms.rules_of("gateway").undo_moves_money                    # its cancel gives paid money back, by QR as well
    told, _ = ruled(terms, msgspec.structs.replace(config, state_dir="/nowhere"))
    assert told.rules_of("gateway").undo_moves_money and told.rules_of("gateway", "code").undo_moves_money
    first = to_terms(parse(BOX | {"channel": {"gateway": GATEWAY | {"wallets": ["alipay", "wechat"]}}}))
    assert (first.gateway_wallets, first.gateway_qr) == (("alipay", "wechat"), "alipay")
    assert not to_terms(parse(BOX | {"channel": {"gateway": {"base_url": "https://x"}}})).rules_of("gateway").undo_moves_money


@pytest.mark.parametrize(("more", "part"), [
    ({"dialect": "shouqianbo"}, "did you mean 'shouqianba'"), ({"wallets": ["ecny"]}, "names ecny, which shouqianba cannot take"),
    ({"secret": KEY.decode()}, "changes every day"), ({"base_url": "http://vsi-api.shouqianba.com"}, "by https")])
def test_what_it_cannot_be_is_said(more, part):
    assert part in reason(channel={"gateway": GATEWAY | more})


def test_a_channel_of_its_own_has_no_dialect():
    from tests.house.test_config import WECHAT
    for more in ({"dialect": "shouqianba"}, {"wallets": ["wechat"]}):
        assert "the gateway's alone" in reason(merchant_keys_on_box=True, channel={"wechat": WECHAT | more})


def test_a_driver_is_made_and_plain_http_is_refused_but_on_the_loopback(far):
    given = {"account": "main", "terminal_id": SN, "private_key_file": str(far.file), "dialect": "shouqianba",
             "base_url": "https://vsi-api.shouqianba.com"}
    keys, wall = KeySet(terminal=PlainFile(far.file)), SystemWall()
    driver = CHANNELS["gateway"](SimpleNamespace(**given), keys, wall)
    assert isinstance(driver, checkin.ShouqianbaChannel) and FetchBill not in driver.does
    assert CHANNELS["gateway"](SimpleNamespace(**given | {"base_url": "http://127.0.0.1:1"}), keys, wall)
    for odd in ("http://vsi-api.shouqianba.com", "http://127.0.0.1.example.com"):
        with pytest.raises(ValueError, match="https only"):
            CHANNELS["gateway"](SimpleNamespace(**given | {"base_url": odd}), keys, wall)
    with pytest.raises(ValueError, match="changes every day"):
        CHANNELS["gateway"](SimpleNamespace(**given), KeySet(secret=KEY.decode()), wall)


@pytest.fixture
def fresh(tmp_path, far):
    vendor = tmp_path / "vendor.toml"
    vendor.write_text(f'vendor_sn = "{far.server.terminals.vendor_sn}"\nvendor_key = "{far.server.terminals.vendor_key.decode()}"\n'
                      f'app_id = "{far.server.terminals.app_id}"\n')
    box = Box(tmp_path, far.server.url, "corner-2", 'dialect = "shouqianba"\n')
    box.vendor = str(vendor)
    return box


def test_a_box_is_activated_once_and_sells(fresh, far, capsys):
    code = far.server.activation_code()
    assert fresh.activate(code, "--vendor", fresh.vendor) == 0
    held = held_of(fresh.key.read_bytes())
    assert (held.notes["terminal"], held.notes["device"][:15]) == ("100012340000002", "corner-corner-2")
    out = capsys.readouterr().out
    assert "terminal 100012340000002" in out and held.newest.decode() not in out
    assert with_terminal(parse_toml(fresh.toml.read_text())).channels[0].terminal_id == "100012340000002"
    assert far.server.terminals.all["100012340000002"].key == held.newest
    assert far.server.terminals.vendor_key.decode() not in "".join(p.read_text() for p in fresh.folder.iterdir() if p.is_file())
    assert asked_by_the_box(fresh) is Said.ABSENT and far.calls == ["activate", "query"]
    other = fresh.activate(code, "--vendor", fresh.vendor, "--again")
    assert other == 1 and "激活码已经被使用" in capsys.readouterr().err


def asked_by_the_box(box):
    """The word on a query by the very driver that the box's configuration makes, of an intent made under its terms."""
    async def run():
        driver = drivers_of(box.config, lambda symbol: None)["channel:gateway"]
        try:
            (account,) = to_terms(box.config).accounts
            return (await driver.do(QueryOrder(msgspec.structs.replace(TEA, account=account)))).said
        finally:
            await driver.close()
    return asyncio.run(run())


def test_a_lost_answer_uses_up_a_use_of_the_code(fresh, far, capsys):
    """Their rule, and no help against it: a fresh device name each time, or the second try would be refused for that."""
    far.server.fault("lost_answer", call="activate")
    code = far.server.activation_code(uses=2)
    assert fresh.activate(code, "--vendor", fresh.vendor) == 1
    assert "may be used up" in capsys.readouterr().err and not fresh.key.exists()
    assert fresh.activate(code, "--vendor", fresh.vendor) == 0
    far.now_s += 7 * DAY_S
    late = far.server.activation_code()
    far.now_s += 7 * DAY_S
    assert fresh.activate(late, "--vendor", fresh.vendor, "--again") == 1 and "激活码已过期" in capsys.readouterr().err


def test_a_full_card_costs_no_code(fresh, far, monkeypatch, capsys):
    def full(path, held):
        raise OSError(28, "No space left on device", str(path))
    monkeypatch.setattr(private_file, "replace", full)
    assert fresh.activate(code := far.server.activation_code(), "--vendor", fresh.vendor) == 1
    assert "No space left on device" in capsys.readouterr().err and not far.server.seen
    monkeypatch.undo()
    assert fresh.activate(code, "--vendor", fresh.vendor) == 0


@pytest.mark.parametrize(("vendor", "why"), [("", "say --vendor FILE"), ("vendor_sn = 1", "is no vendor file"),
                                             ('vendor_sn = "x"', "is no vendor file"), ("no toml", "is no vendor file")])
def test_without_the_vendors_signature_nothing_is_sent(fresh, far, tmp_path, capsys, vendor, why):
    (tmp_path / "odd.toml").write_text(vendor)
    assert fresh.activate("12345678", *(["--vendor", str(tmp_path / "odd.toml")] if vendor else [])) == 1
    assert why in capsys.readouterr().err and not far.server.seen
