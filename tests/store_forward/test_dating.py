"""A box without a battery clock dates its records afterwards: by what the cloud or a channel says later, within a stated bound."""

from __future__ import annotations

import datetime
import json
import random
from pathlib import Path

import msgspec
import pytest

from device.__main__ import main
from device.anchors import DATE_LATE_MS, EVERY_MS, GOOD_MS, Anchors, acknowledged, drift_ms
from device.anchors import dated as by_date
from device.drivers.signer.file import FileSigner
from device.mqtt.wire import Ack, Batch
from device.real_clock import RealClock
from device.store_forward.dating import Dated, clocks_of, dated
from device.store_forward.es256 import public_verifier
from device.store_forward.forwarder import Forwarder
from device.store_forward.token import Payload, digest, parse
from device.store_forward.verify import verify
from device.txn import facts as wire
from device.txn.effects import Effect, SignRecord
from device.txn.inputs import DeviceSaid, Signed
from fleet.__main__ import main as fleet
from fleet.records.store import Store
from tests.counter import TEA, Counter

NOON_MS = 1_795_492_800_000
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def rfc3339(ms: int, timespec: str = "seconds") -> str:
    return datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC).isoformat(timespec=timespec)


class Box(Counter):
    """The real box and clock: a system clock that says 1970 after each start, a monotonic one `ppm` fast, and the truth.

    `truth` is when each record fell due, by (boot, mono_ms).
    """

    seed = "AAAAAAAAAAAAAAAAAAAAAA"

    def __init__(self, folder: Path, *, ppm: int = 0, starts_at: int = 0) -> None:
        self.signer, self.ppm, self.starts_at = FileSigner(folder / "record.key"), ppm, starts_at
        self.true_ms, self.truth, self.off_ms = NOON_MS, {}, 0
        super().__init__()

    def start_up(self) -> None:
        self.born_ms, self.off_ms = self.true_ms, self.starts_at - self.true_ms
        self.clock = RealClock(f"boot{self.boots + 1}", self.box.last_wall if self.boots else "",
                               system_s=lambda: (self.true_ms + self.off_ms) / 1000,
                               mono_s=lambda: (self.true_ms - self.born_ms) * (1 + self.ppm / 1e6) / 1000)
        self.clock.on_anchor = self.tell
        super().start_up()

    def tell(self, *events):
        verdict = None
        for event in events:
            at = self.clock.stamp()
            self.truth.setdefault((at.boot, at.mono_ms), self.true_ms)
            verdict, start, _ = self.box.handle(event, at)
            for effect in start:
                self._answer(effect)
        return verdict

    def _answer(self, effect: Effect) -> None:
        if isinstance(effect, SignRecord):
            self.tell(Signed(effect.seq, self.signer.sign(effect.payload)))
        else:
            super()._answer(effect)

    def goes_on(self, ms: int) -> None:
        self.true_ms += ms

    def sells(self, times: int = 1, every_ms: int = 7_321) -> None:
        for _ in range(times):
            self.goes_on(every_ms)
            self.scan(TEA)
            self.press("CASH")

    def hears_ack(self, way_ms: int = 240, back_ms: int = 90) -> None:
        sent_ms = self.clock.now_ms()
        self.goes_on(way_ms)
        said = rfc3339(self.true_ms)
        self.goes_on(back_ms)
        self.clock.acknowledged(said, sent_ms)

    def power_cut(self, dark_ms: int) -> None:
        self.journal.sync()
        self.goes_on(dark_ms)
        self.cut_power()

    def tokens(self) -> list[str]:
        self.journal.sync()
        return [token for row in self.journal.durable for _, token in wire.tokens_of(row.facts)]

    def records(self) -> list[Payload]:
        return [parse(token).payload for token in self.tokens()]

    def dates(self) -> list[Dated]:
        """Each within its own bound of the truth, or the test ends here."""
        records = self.records()
        found = dated(records, clocks_of(records))
        for record, date in zip(records, found, strict=True):
            off_ms = abs(date.at_ms - self.truth[record.boot, record.mono_ms])
            assert date.error_ms is None or off_ms <= date.error_ms, (record.kind, record.boot, off_ms, date)
        return found


@pytest.mark.parametrize("ppm", [0, 30, -30, 400, -400])
def test_ten_sales_of_1970_are_dated_by_the_acknowledgement_that_follows(tmp_path, ppm):
    box = Box(tmp_path, ppm=ppm)
    box.sells(10)
    assert {record.at[:4] for record in box.records()} == {"1970"}
    assert {date.source for date in box.dates()} == {"none"}
    box.hears_ack()
    box.sells()
    dates, records = box.dates(), box.records()
    assert {date.source for date in dates} == {"anchor"} and max(date.error_ms or 0 for date in dates) < 1_000
    assert len(clocks_of(records)) == 1 and records[-1].at[:4] == "2026" and records[-1].clk == "anchored"
    body = json.loads(bytes(clocks_of(records)[0].body))
    assert body["source"] == "ack" and body["rtt_ms"] in (329, 330) and body["error_ms"] in (665, 666) and body["boot"] == "boot1"


def test_a_jump_of_the_systems_clock_in_the_middle_moves_no_date(tmp_path):
    box = Box(tmp_path)
    box.sells(3)
    box.hears_ack()
    for jump in (HOUR, -3 * HOUR, 400 * DAY):
        box.off_ms += jump
        box.sells(2)
    assert {date.source for date in box.dates()} == {"anchor"} and max(date.error_ms or 0 for date in box.dates()) < 1_000


def test_a_boot_that_nobody_dated_lies_between_its_neighbours(tmp_path):
    box = Box(tmp_path)
    box.sells(2)
    box.hears_ack()
    box.sells()
    box.power_cut(3 * MINUTE)
    box.sells(5)                                             # the line was down for all of this boot, and of the next
    box.power_cut(2 * MINUTE)
    box.sells(2)
    box.power_cut(MINUTE)
    box.sells()
    assert {date.source for date in box.dates()[-3:]} == {"none"}
    box.hears_ack()
    dates = box.dates()
    assert {date.source for date in dates} == {"anchor", "between"}
    between = [date for date in dates if date.source == "between"]
    assert len(between) == 6 + 3 and max(date.error_ms or 0 for date in between) < 4 * MINUTE     # half of six minutes in the dark
    assert [date.at_ms for date in between] == sorted(date.at_ms for date in between)


def test_a_first_boot_without_an_anchor_has_no_date_and_says_so(tmp_path):
    box = Box(tmp_path)
    box.sells(2)
    box.power_cut(MINUTE)
    box.hears_ack()
    dates = box.dates()
    assert [date.source for date in dates[:3]] == ["none"] * 3 and dates[0].error_ms is None and dates[-1].source == "anchor"


def test_a_channels_date_serves_until_the_cloud_says_better(tmp_path):
    box = Box(tmp_path)
    box.sells(2)
    box.clock.dated(box.true_ms // 1000)
    assert {date.error_ms for date in box.dates()[:1]} != {None}
    coarse = box.dates()[0].error_ms
    assert coarse is not None and (1000 + DATE_LATE_MS) // 2 <= coarse < 20_000
    box.hears_ack()
    assert (box.dates()[0].error_ms or 0) < 1_000
    for _ in range(50):
        box.goes_on(MINUTE)
        box.clock.dated(box.true_ms // 1000)
        box.hears_ack()
    assert [record.kind for record in box.records()].count("clock") == 2


def test_long_boots_are_anchored_again_and_seldom(tmp_path):
    box = Box(tmp_path, ppm=90)
    for _ in range(7 * 24):
        box.sells(1, HOUR // 2)
        box.goes_on(HOUR // 2)
        box.hears_ack()
    clocks = [record.kind for record in box.records()].count("clock")
    assert 7 < clocks < 7 * 5
    assert max(date.error_ms or 0 for date in box.dates()) <= GOOD_MS


def test_contradicting_anchors_are_recorded_at_most_once_an_hour():
    anchors, said = Anchors(), 0
    for minute in range(24 * 60):
        wrong_ms = 20 * MINUTE * (minute % 2)
        said += anchors.worth(acknowledged(NOON_MS + minute * MINUTE + wrong_ms, True, minute * MINUTE, minute * MINUTE + 100))
    assert 20 < said <= 25 and EVERY_MS == HOUR


def test_anchors_hold_the_truth_whatever_the_way_took():
    dice = random.Random(5)
    for _ in range(2_000):
        sent, way, back = dice.randrange(DAY), dice.randrange(30_000), dice.randrange(30_000)
        true_ms = NOON_MS + sent + way
        said = true_ms // 1000 * 1000
        anchor = acknowledged(said, True, sent, sent + way + back)
        assert abs(anchor.at_ms - (true_ms + back)) <= anchor.error_ms and anchor.rtt_ms == way + back
        late = dice.randrange(DATE_LATE_MS)
        date = by_date(said, sent)
        assert abs(date.at_ms - (true_ms + late)) <= date.error_ms
    assert drift_ms(HOUR) == drift_ms(-HOUR) == 1_800


def test_what_waited_for_a_broken_signer_keeps_the_date_of_what_happened(tmp_path):
    box = Box(tmp_path)
    box.hears_ack()
    plain = box._answer
    box._answer = lambda effect: box.tell(DeviceSaid("signer", "gone", "away")) if isinstance(effect, SignRecord) else plain(effect)
    box.sells(3)
    box._answer = plain
    box.goes_on(HOUR)
    box.tell(DeviceSaid("signer", "ok"))
    kinds = [record.kind for record in box.records()]
    gap = kinds.index("signer_gap")
    dates = box.dates()                                      # each is held against the truth of its own moment
    assert dates[gap].at_ms - dates[gap + 1].at_ms > HOUR - MINUTE
    assert not list(verify(box.tokens(), {box.signer.kid: public_verifier(box.signer.jwk)}))


# What is not believed

def test_an_acknowledgement_of_an_earlier_boots_record_and_a_stray_body_anchor_nothing(tmp_path):
    box = Box(tmp_path)
    box.sells(2)
    box.clock.acknowledged(rfc3339(box.true_ms))             # nobody knows when that left
    assert "clock" not in [record.kind for record in box.records()]
    records = box.records()
    good = {"boot": "boot1", "mono_ms": 1, "at": "2026-11-24T00:00:00Z", "error_ms": 1}
    for body in ({}, good | {"at": "yesterday"}, good | {"error_ms": -1}, good | {"boot": "boot9"}):
        stray = msgspec.structs.replace(records[0], kind="clock", body=msgspec.Raw(json.dumps(body).encode()))
        assert {date.source for date in dated(records, [stray])} == {"none"}


def test_anchors_that_contradict_each_other_leave_the_nearest_standing(tmp_path):
    box = Box(tmp_path)
    box.sells(2)
    box.hears_ack()
    box.goes_on(2 * HOUR)
    box.clock.acknowledged(rfc3339(box.true_ms + 5 * MINUTE), box.clock.now_ms())
    records = box.records()
    found = dated(records, clocks_of(records))
    assert all(date.error_ms is not None and date.error_ms < 5_000 for date in found)
    assert abs(found[0].at_ms - NOON_MS) < 2_000


def test_the_forwarder_knows_when_a_record_left_first():
    tokens = [f"t{n}" for n in range(1, 121)]
    numbered = list(enumerate(tokens, 1))
    forwarder = Forwarder("j", 0, "", tokens=lambda after, limit: numbered[after:after + limit], seed=1)
    forwarder.on_link(True, True, 100)
    assert [(b.first, b.last) for b in forwarder.due(1_000)] == [(1, 50)] and forwarder.sent_ms(51) is None
    forwarder.on_link(False, False, 2_000)
    forwarder.on_link(True, True, 3_000)
    forwarder.due(4_000)                                     # again
    assert forwarder.sent_ms(1) == forwarder.sent_ms(50) == 1_000 and len(forwarder._firsts) == 1
    forwarder.on_ack(Ack("box", "j", 50, digest(tokens[49])), 5_000)
    forwarder.due(6_000)
    assert forwarder.sent_ms(51) == forwarder.sent_ms(100) == 6_000


# The listing

def test_the_commands_list_dates(tmp_path, capsys):
    box = Box(tmp_path)
    box.sells(2)
    box.hears_ack()
    tokens = box.tokens()
    (tmp_path / "chain").write_text("\n".join(tokens) + "\n")
    assert main(["dates", str(tmp_path / "chain"), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["source"] for row in rows] == ["anchor"] * 4 and rows[0]["claimed"][:4] == "1970" and rows[0]["at"][:4] == "2026"
    (tmp_path / "chain").write_text(tokens[0] + "\n")
    assert main(["dates", str(tmp_path / "chain")]) == 1 and "no bound" in capsys.readouterr().out
    assert main(["dates", str(tmp_path / "none")]) == 2
    store = Store(tmp_path / "store.db", [box.signer.jwk])
    with store.transaction():
        store.take("box-1", Batch(box.box.books.chain.jid, 1, len(tokens), digest(tokens[-1]), tuple(tokens)), rfc3339(NOON_MS))
    store.close()
    assert fleet(["dates", "box-1", "--store", str(tmp_path / "store.db"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"box": "box-1", "records": 4, "anchor": 4}
