"""What the core makes of a pushed configuration: a record of each word that is news, and a moment between two customers."""

from __future__ import annotations

import msgspec

from device.goods import PriceList
from device.txn.effects import Alarm, TakeConfig
from device.txn.inputs import ConfigSaid, Configured, Rang, Said
from device.types import Found
from tests.counter import TEA, TERMS, Counter, counter_paying, records

WAITS = ConfigSaid(0, 3, "d" * 64, "staged", waits=True)
TRIAL = ConfigSaid(0, 3, "d" * 64, "trial", n=1)


def config_effects(counter: Counter) -> set[str]:
    mine = (e for e in counter.running if isinstance(e, TakeConfig) or (isinstance(e, Alarm) and e.key == ("config",)))
    return {type(e).__name__ for e in mine}


def test_an_idle_till_takes_what_waits():
    counter = Counter()
    counter.tell(WAITS)
    assert config_effects(counter) == {"Alarm"}
    counter.tell(Rang(("config",)))
    assert config_effects(counter) == {"TakeConfig"}
    counter.tell(TRIAL)
    assert config_effects(counter) == set()
    assert records(counter)[-1] == {"kind": "config", "epoch": 0, "version": 3, "digest": "d" * 64, "state": "trial"}


def test_a_sale_in_progress_is_never_touched():
    counter, no = counter_paying()
    counter.tell(WAITS)
    counter.tell(Rang(("config",)))                          # an alarm that nobody asked for
    assert config_effects(counter) == set()
    counter.say(no, Said.PAID, 500)
    counter.tell(Rang(("config",)))
    assert config_effects(counter) == {"TakeConfig"}
    counter.scan(TEA)                                        # the next customer was quicker
    assert config_effects(counter) == set()


def test_the_same_word_is_recorded_once_over_boots():
    counter = Counter()
    for _ in range(2):
        counter.tell(TRIAL)
    counter.cut_power()
    back = ConfigSaid(0, 3, "d" * 64, "rolled_back", "it did not reach the cloud", n=2)
    counter.tell(TRIAL, back, TRIAL)
    assert [body["state"] for body in records(counter) if body["kind"] == "config"] == ["trial", "rolled_back"]
    assert not counter.journal.waiting_rows


def test_what_waits_is_no_record():
    counter = Counter()
    counter.tell(WAITS)
    assert not [body for body in records(counter) if body["kind"] == "config"]


def test_a_new_price_list_leaves_the_basket_alone_and_the_receipt_names_both():
    before = PriceList([TEA.item], version="aaaa")
    after = PriceList([msgspec.structs.replace(TEA.item, price_fen=450)], version="bbbb")
    counter = Counter()

    def scanned(prices: PriceList) -> Found:
        found = prices.look_up(TEA.item.gtin)
        assert found is not None
        return found

    counter.scan(scanned(before), 2)
    counter.tell(Configured(TERMS))
    counter.scan(scanned(after))
    lines = [(x.price_fen, x.qty_milli, x.list_version) for x in counter.box.books.basket.lines]
    assert lines == [(500, 2000, "aaaa"), (450, 1000, "bbbb")]
    counter.say(counter.pay(), Said.PAID, 1450)
    sale = next(body for body in records(counter) if body["kind"] == "sale")
    assert sale["price_lists"] == ["aaaa", "bbbb"] and sale["amount_fen"] == 1450
    assert any(getattr(part, "text", "") == "价目 / Prices aaaa bbbb" for part in counter.printed[-1].paper)
