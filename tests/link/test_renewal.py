"""A certificate is renewed over the line that stands, tried on another, and never lost on the way.  Clock and line by hand."""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509

from device.identity import enrol, renewal
from device.identity import folder as identity
from device.identity.renewal import Renewal
from device.mqtt import ask_wire
from device.mqtt.csr_wire import request as csr_of
from device.store_forward.token import b64
from device.types import Stamp
from fleet.identity.enrol import Renewals
from tests.enrol_room import Office, Shop
from tests.record_chain import Key

DAY_S = 86_400


class Line:
    """The line to a broker that takes the certificates in `takes`; the old one, that is, until somebody changes it."""

    def __init__(self) -> None:
        self.up, self.session, self.used = True, "s0", list[Any]()
        self.answers = True

    def use(self, context: Any) -> None:
        self.used.append(context)
        self.up, self.session = False, ""

    def comes(self) -> None:
        self.up, self.session = True, f"s{len(self.used)}"


class Box:
    """An enrolled box, its renewal, and the cloud at the other end of `ask`."""

    def __init__(self, folder: Path) -> None:
        self.office, self.shop, self.line = Office(), Shop(folder / "box"), Line()
        code = self.office.desk.code_for("box-1")
        config = self.shop.config()
        asked = enrol.prepared(config, code)
        enrol.accepted(config, code, asked, self.office.desk.take(asked) or b"")
        self.folder = Path(self.shop.enrolled().identity_dir)
        self.renewals = Renewals(self.office.db, self.office.authority, "shop")
        self.asks: list[ask_wire.Ask] = []
        self.silent, self.clk, self.mono_s = 0, "ntp", 0.0
        self.now_s = datetime.datetime.now(datetime.UTC).timestamp()
        self.start()

    def start(self) -> None:
        """As after a boot: only the card remembers."""
        self.renewal = Renewal(self.folder, "box-1", ask=self.ask, line=lambda: self.line, stamp=self.stamp,
                               now_s=lambda: self.now_s, mono_s=lambda: self.mono_s,
                               tls=lambda key, cert, ca: (Path(cert).read_bytes(), Path(ca).exists()))

    async def ask(self, ask: ask_wire.Ask) -> ask_wire.Answer:
        self.asks.append(ask)
        with self.office.db.transaction():
            answer = self.renewals.answer("box-1", ask, self.office.wall())
        if self.silent:                              # the cloud did what it was asked, and the answer was lost
            self.silent -= 1
            return ask_wire.Answer("box-1", ask.id, why="the cloud does not answer")
        return answer

    def stamp(self) -> Stamp:
        return Stamp("boot", int(self.mono_s * 1000), "2026-07-14T09:26:53+08:00", self.clk)

    def step(self, *, after_s: float = 0) -> None:
        self.mono_s += after_s
        asyncio.run(self.renewal.step())

    def later(self, days: int) -> None:
        self.now_s += days * DAY_S
        self.mono_s += days * DAY_S
        self.office.later(days=days)

    def pem(self) -> bytes:
        return (self.folder / "tls.pem").read_bytes()

    def fits(self) -> bool:
        """Key and certificate on the card are a pair of this box, and nothing else is gone."""
        key = enrol.Key((self.folder / "tls.key").read_bytes())
        assert sorted(p.name for p in self.folder.iterdir()) == sorted(identity.FILES)
        return not enrol.chain_fault(self.pem(), (self.folder / "ca.pem").read_bytes(), key.jwk, "shop/box-1")


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_at_two_thirds_of_its_life_and_not_before(box: Box) -> None:
    for days in (0, 200, 41):                                # 366 days of life, one of them before it was made: 243 from then
        box.later(days)
        box.step()
        assert not box.asks
    box.later(3)
    old = box.pem()
    box.step()
    assert len(box.asks) == 1 and len(box.line.used) == 1 and box.pem() == old, "the old one stands until the new one connected"
    box.step(after_s=5)
    assert box.pem() == old
    box.line.comes()
    box.step()
    assert box.pem() != old and box.fits() and box.line.used[0][0] == box.pem()
    assert not Path(f"{box.folder}.renewal").exists()
    key = x509.load_pem_x509_certificate(box.pem()).public_key()
    assert key != x509.load_pem_x509_certificate(old).public_key(), "the key is a fresh one, too"
    box.step(after_s=DAY_S)
    assert len(box.asks) == 1, "and now it is young again"


@pytest.mark.parametrize("clk", ["unset", "restored"])
def test_a_clock_that_nobody_vouches_for_renews_nothing(box: Box, clk: str) -> None:
    box.clk = clk
    box.now_s += 3000 * DAY_S
    box.step()
    assert not box.asks and box.renewal.state == "waits"
    box.clk = "anchored"                                     # an acknowledgement came
    box.step()
    assert len(box.asks) == 1


def test_a_lost_answer_is_asked_for_again_with_the_same_key(box: Box) -> None:
    box.later(300)
    box.silent = 2
    box.step()
    box.step(after_s=60)
    assert len(box.asks) == 1, "not before an hour is over"
    box.start()                                              # a power cut in between
    box.step()
    box.step(after_s=renewal.AGAIN_S + 1)
    assert len({ask.csr for ask in box.asks}) == 1 and len({ask.id for ask in box.asks}) == len(box.asks) == 3
    box.line.comes()
    box.step()
    assert box.fits() and box.pem() == box.line.used[0][0] and [use for _, use in box.office.authority.issued].count("box") == 2


def test_one_that_the_broker_does_not_take_is_given_up_and_the_old_one_stands(box: Box) -> None:
    box.later(300)
    old = box.pem()
    box.step()
    for n in range(renewal.TRIALS_MAX):
        box.step(after_s=renewal.TRIAL_S + 1)
        assert box.line.used[-1][0] == old and box.renewal.state == "back"
        box.line.comes()
        box.step()
        assert box.pem() == old and box.fits()
        assert Path(f"{box.folder}.renewal").exists() is (n < renewal.TRIALS_MAX - 1)
        box.step(after_s=renewal.AGAIN_S + 1)                # tried once more, and at last asked for anew
        box.office.later(hours=2)
    assert len({ask.csr for ask in box.asks}) == 2


def test_a_power_cut_while_the_fresh_one_is_tried_goes_on_from_the_card(box: Box) -> None:
    box.later(300)
    box.step()
    old = box.pem()
    box.start()
    box.line.comes()                                         # a boot connects with what stands: the old one
    box.step()
    assert box.pem() == old and len(box.line.used) == 2 and box.line.used[1][0] != old and len(box.asks) == 1
    box.line.comes()
    box.step()
    assert box.fits() and box.pem() == box.line.used[1][0]


@pytest.mark.parametrize("harm", ["another key", "another name", "another CA", "no certificate"])
def test_what_does_not_fit_is_not_even_tried(box: Box, harm: str, monkeypatch) -> None:
    box.later(300)

    async def ask(asked: ask_wire.Ask) -> ask_wire.Answer:
        box.asks.append(asked)
        der = enrol.csr_wire.pem(csr_of("box-1", Key().jwk, lambda _: bytes(64)) if harm == "another key"
                                 else enrol_csr(asked.csr))
        authority = Office().authority if harm == "another CA" else box.office.authority
        name = "shop/box-2" if harm == "another name" else "shop/box-1"
        chain = "-----" if harm == "no certificate" else authority.issue(der, name, use="box").decode()
        return ask_wire.Answer("box-1", asked.id, chain=chain)
    box.renewal._ask = ask
    old = box.pem()
    box.step()
    assert box.asks and not box.line.used and box.pem() == old and not Path(f"{box.folder}.renewal").exists()


def enrol_csr(text: str) -> bytes:
    from device.store_forward.token import unb64
    return unb64(text)


# The cloud's side --------------------------------------------------------------------------------------------------

def renew(box: Box, key: Key | None = None, of: str = "box-1", ask_id: str = "a1") -> ask_wire.Answer:
    key = key or Key()
    ask = ask_wire.Ask(of, ask_id, "renew", csr=b64(csr_of(of, key.jwk, key.sign)))
    with box.office.db.transaction():
        return box.renewals.answer(of, ask, box.office.wall())


def test_the_cloud_renews_for_boxes_that_it_enrolled_one_an_hour_and_not_for_the_revoked(box: Box) -> None:
    key = Key()
    box.office.later(days=29)
    assert "less than 30 days" in renew(box, key).why, "whoever was just replaced gets none over the connection that it still has"
    box.office.later(days=1)
    first = renew(box, key)
    assert first.chain and not first.why
    box.office.later(minutes=59)
    assert renew(box, key, ask_id="a2").chain == first.chain, "the same key has the same certificate"
    assert "less than an hour" in renew(box).why
    box.office.later(minutes=1)
    assert renew(box).chain and renew(box, of="box-9").why == "this box was not enrolled here"
    box.office.later(hours=1)
    assert "fresh key" in renew(box, key).why
    forged = ask_wire.Ask("box-1", "a3", "renew", csr=b64(csr_of("box-1", Key().jwk, Key().sign)))
    assert "not signed by its own key" in box.renewals.answer("box-1", forged, box.office.wall()).why
    box.renewals = Renewals(box.office.db, box.office.authority, "shop", refuses=lambda name: f"{name} is revoked")
    assert renew(box).why == "shop/box-1 is revoked"


def test_a_question_says_about_what_and_nothing_else() -> None:
    key = Key()
    ask = ask_wire.Ask("box-1", "a1", "renew", csr="A" * 64)
    assert ask_wire.ask_decoded(ask_wire.ask_encoded(ask, key.kid, key.sign), {key.kid: lambda *_: True}) == ask
    for wrong in ({"csr": ""}, {"order_no": "0" * 20}, {"verb": "sale_by_order"}):
        raw = ask_wire.ask_encoded(msgspec.structs.replace(ask, **wrong), key.kid, key.sign)
        with pytest.raises(ask_wire.WireError, match="ASK_PAYLOAD"):
            ask_wire.ask_decoded(raw, {key.kid: lambda *_: True})
