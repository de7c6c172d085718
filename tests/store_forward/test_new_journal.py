"""Fork, rollback, clone and loss, from the box to the collector's store and back: the real uplink and clerk, without a wire."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Coroutine
from pathlib import Path

from bench.till import GOODS, Till
from device.config import parse
from device.mqtt import topics, wire
from device.store_forward.es256 import public_verifier
from device.store_forward.token import parse as token_of
from device.store_forward.verify import verify
from device.txn.inputs import ChannelSaid, Input, Pressed, Rang, Said, Scanned
from device.uplink import Uplink
from fleet.records.collector import Clerk
from fleet.records.store import Store
from tests.record_chain import Key
from tests.store_forward.test_recovery import no_journal, older_journal, parked_order, refuses_wallets, torn_copy

ACK_KEY = Key()
SEED = "c2Vjb25kLWpvdXJuYWwtMQ"


class Clock:
    def __init__(self) -> None:
        self.ms = 0

    def now_ms(self) -> int:
        self.ms += 10
        return self.ms

    def now_s(self) -> float:
        return 1_790_000_000.0

    def acknowledged(self, *_: object) -> None:
        pass

    def stamp(self):
        from device.types import Stamp
        return Stamp("b", self.now_ms(), "2026-09-01T09:00:00.000+08:00", "ntp")


class Line:
    """What the uplink takes for its link: everything sent is kept for the cloud."""

    enc, session, up, why_down = "zlib", "nonce", True, ""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []

    def publish(self, name: str, payload: bytes) -> bool:
        self.sent.append((name, payload))
        return True

    def publish_up(self, payload: bytes) -> bool:
        return self.publish("up", payload)


class Cloud:
    def __init__(self, folder: Path, key: dict[str, str]) -> None:
        self.store = Store(folder / "cloud.db", [key])
        self.clerk = Clerk(self.store, "shop", ACK_KEY.kid, ACK_KEY.sign, lambda: "2026-09-01T09:00:00+08:00")

    def kinds(self, jid: str) -> list[str]:
        return [token_of(token).payload.kind for token in self.store.chain("box-1", jid)]

    def heads(self) -> dict[str, int]:
        return {jid: upto for _, jid, upto, _ in self.store.guards()}


class Box:
    """A till with its uplink; `talk` connects, and goes on until nothing more is said."""

    def __init__(self, folder: Path, cloud: Cloud, boot: str = "b1", seed: str = SEED) -> None:
        self.folder, self.cloud = folder, cloud
        self.till = Till(folder, boot, seed=seed) if boot != "b1" else Till(folder)
        config = parse({"box": "box-1", "box_no": "000001", "tenant": "shop", "state_dir": str(folder)})
        self.uplink = Uplink(config, self.till.journal, self.till.box, Clock(), boot)  # type: ignore[arg-type]
        self.uplink.keys |= {ACK_KEY.kid: public_verifier(ACK_KEY.jwk)}
        self.uplink.link = self.line = Line()  # type: ignore[assignment]
        self.said: list[Input] = []
        self.hellos: list[wire.Hello] = []
        self.uplink.begin(self.said.append)

    @property
    def books(self):
        return self.till.box.books

    async def talk(self) -> None:
        self.uplink.clock.ms += 600_000
        self.line.sent.append(("hello", self.uplink._hello("nonce")))
        self.uplink._state(True, True)
        for turn in range(60):
            sent, self.line.sent = self.line.sent, []
            self.hellos += [wire.hello_decoded(payload) for name, payload in sent if name == "hello"]
            up = [(topics.of_box("shop", "box-1", name), payload) for name, payload in sent if name in ("up", "hello")]
            for _, payload in self.cloud.clerk.handle(up) if up else ():
                self.uplink._came("ack", payload)
            said, self.said[:] = [*self.said], []
            for event in said:
                self.till.tell(event)
            if self.books.boot and ("journal",) in self.till.box._wanted:
                self.till.tell(Rang(("journal", self.till.box.desk.renew[1])))
            self.till.journal.sync()
            self.uplink.clock.ms += 2_000
            self.uplink.forward()
            await asyncio.sleep(0)                   # a batch is packed in a turn of its own
            if turn > 4 and not self.line.sent and not self.said:
                break
        if self.uplink._timer is not None:
            self.uplink._timer.cancel()

    def copied(self, to: Path) -> Path:
        self.till.journal.sync()
        return shutil.copytree(self.folder, to)

    def close(self) -> None:
        self.till.close()

    def whole(self, *jids: str) -> bool:
        """What the cloud has of these journals follows, one on the other."""
        tokens = [token for jid in jids for token in self.cloud.store.chain("box-1", jid)]
        return list(verify(tokens, {self.till.signer.kid: public_verifier(self.till.signer.jwk)})) == []


def begun(tmp_path: Path) -> tuple[Box, Cloud]:
    folder = tmp_path / "box"
    folder.mkdir()
    from device.drivers.signer.file import FileSigner
    cloud = Cloud(tmp_path, FileSigner(folder / "record.pem").jwk)
    return Box(folder, cloud), cloud


def run(story: Coroutine[None, None, None]) -> None:
    asyncio.run(story)


def test_a_cloned_box_goes_on_under_its_own_journal_and_the_cloud_names_the_fork(tmp_path: Path) -> None:
    async def story() -> None:
        one, cloud = begun(tmp_path)
        one.till.cash_sale()
        parked = parked_order(one.till)
        await one.talk()
        twin = Box(one.copied(tmp_path / "twin"), cloud, "b2")
        old = one.books.chain.jid
        assert twin.till.found.act == "sell" and twin.books.chain.jid == old
        one.till.cash_sale()
        await one.talk()
        twin.till.qr_sale()
        await twin.talk()
        assert twin.uplink.trouble == "fork" and ("box-1", "Fork") in {(a[0], a[3]) for a in cloud.store.alarms()}
        assert twin.books.chain.jid == old                 # a customer still sees "paid": nothing is begun under his eyes
        twin.till.tell(Pressed("CLEAR"))
        await twin.talk()
        fresh = twin.books.chain.jid
        assert fresh != old and twin.uplink.trouble == "" and twin.uplink.unacked == 0
        assert cloud.kinds(fresh)[0] == "journal" and cloud.heads()[fresh] == twin.books.chain.seq
        assert twin.books.orders[parked].park == "book"    # carried along
        assert {head.jid for head in twin.hellos[-1].journals} == {old, fresh}
        before = set(twin.books.sales)
        twin.till.qr_sale()
        assert not {no[:10] for no in set(twin.books.sales) - before} & {no[:10] for no in one.books.sales}
        assert one.books.chain.jid == old and one.uplink.trouble == ""
        await one.talk()
        assert cloud.heads()[old] == one.books.chain.seq and one.whole(old)
        body = token_of(cloud.store.chain("box-1", fresh)[0]).payload.body
        assert old.encode() in bytes(body) and b'"fork"' in bytes(body)
        twin.till.tell(ChannelSaid(parked, Said.PAID, GOODS[0].item.price_fen, "42"))
        assert parked in twin.books.sales
        one.close()
        twin.close()
    run(story())


def test_a_restored_backup_is_told_of_the_records_it_lost(tmp_path: Path) -> None:
    async def story() -> None:
        one, cloud = begun(tmp_path)
        one.till.cash_sale()
        backup = one.copied(tmp_path / "backup")
        one.till.cash_sale()
        await one.talk()
        old, made = one.books.chain.jid, one.books.orders_made
        one.close()
        back = Box(backup, cloud, "b2")
        await back.talk()
        back.till.tell(Pressed("CLEAR"))
        await back.talk()
        chain = back.books.chain
        assert chain.jid != old and back.books.orders_made > made + 900 and cloud.heads()[chain.jid] == chain.seq
        assert back.uplink.trouble == "" and back.uplink.unacked == 0
        back.close()
    run(story())


def test_in_the_middle_of_a_basket_no_new_journal_begins(tmp_path: Path) -> None:
    async def story() -> None:
        one, cloud = begun(tmp_path)
        one.till.cash_sale()
        backup = one.copied(tmp_path / "backup")
        one.till.cash_sale()
        await one.talk()
        one.close()
        back = Box(backup, cloud, "b2")
        back.till.tell(Scanned(GOODS[0].item.gtin, GOODS[0]))
        await back.talk()
        old = back.books.chain.jid
        assert back.till.box.desk.renew[0] in ("fork", "rollback") and len(back.books.chain.older) == 0
        back.till.tell(Pressed("CASH"))
        assert back.books.chain.jid == old
        back.till.tell(Pressed("CLEAR"))
        await back.talk()
        assert back.books.chain.jid != old
        back.close()
    run(story())


def test_after_a_loss_what_is_left_of_the_old_journal_is_sent_first(tmp_path: Path) -> None:
    async def story() -> None:
        one, cloud = begun(tmp_path)
        one.till.cash_sale()
        await one.talk()
        early = one.copied(tmp_path / "early")
        one.till.cash_sale()
        one.till.cash_sale()
        folder, old = one.copied(tmp_path / "lost"), one.books.chain.jid
        one.close()
        from tests.store_forward.test_recovery import Left
        left = Left(folder, folder, early, "", 0, 0, 0, old, frozenset())
        torn_copy(folder, left)
        older_journal(folder, left)
        box = Box(folder, cloud, "b2")
        assert box.till.found.act == "cash only" and refuses_wallets(box.till)
        had, fresh = cloud.heads()[old], box.books.chain.jid
        await box.talk()
        assert fresh != old and cloud.heads()[old] > had and cloud.heads()[fresh] == box.books.chain.seq
        assert box.whole(old, fresh) and not box.books.wallets_stopped and box.uplink.unacked == 0
        assert not refuses_wallets(box.till)
        box.close()
    run(story())


def test_a_box_that_forgot_everything_hears_of_it_from_the_cloud(tmp_path: Path) -> None:
    async def story() -> None:
        one, cloud = begun(tmp_path)
        one.till.cash_sale()
        await one.talk()
        folder, old = one.copied(tmp_path / "empty"), one.books.chain.jid
        one.close()
        shutil.rmtree(folder / "second")
        no_journal(folder, None)  # type: ignore[arg-type]
        box = Box(folder, cloud, "b2")
        assert box.till.found.act == "cash only" and refuses_wallets(box.till)
        await box.talk()
        chain = box.books.chain
        assert chain.jid != old and not box.books.wallets_stopped
        named = [bytes(token_of(token).payload.body) for token in cloud.store.chain("box-1", chain.jid)
                 if token_of(token).payload.kind == "journal"]
        assert len(named) == 1 and old.encode() in named[0]
        box.close()
    run(story())


def test_a_batch_whose_line_is_lost_between_its_reading_and_its_packing_comes_again(tmp_path: Path) -> None:
    async def story() -> None:
        box, cloud = begun(tmp_path)
        for _ in range(3):
            box.till.cash_sale()
        box.till.journal.sync()
        box.uplink.clock.ms += 600_000
        box.uplink._state(True, True)
        assert box.uplink.forwarder.outstanding == 1 and not [name for name, _ in box.line.sent if name == "up"]
        box.line.session = "another"
        box.uplink._state(False, False)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not [name for name, _ in box.line.sent if name == "up"] and box.uplink.forwarder.outstanding == 0
        await box.talk()
        assert cloud.heads() == {box.books.chain.jid: box.books.chain.seq} and box.whole(box.books.chain.jid)
        box.close()
    run(story())
