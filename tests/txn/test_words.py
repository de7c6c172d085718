"""Sentences at the till: each in both languages, and each in one language from its first to its last word."""

from __future__ import annotations

import inspect
import re
import string

import pytest

import fleet.records.leases
from device.drivers.channels import card, card_bytes
from device.drivers.input import scanner_keys, scanner_reads
from device.mqtt import cloud
from device.txn import leasing
from device.txn.inputs import RefundWord, SaleAnswered, ScanSpoiled
from device.txn.whys import WHYS
from device.txn.words import WORDS
from tests.counter import TEA, Counter
from tests.txn.test_leases import Town

CHINESE = re.compile(r"[\u4e00-\u9fff]")


def said_by(module, pattern: str) -> set[str]:
    return set(re.findall(pattern, inspect.getsource(module)))


def reasons() -> set[str]:
    scans = said_by(scanner_keys, r'(?:return |spoil\(|or |else )"(the scan[^"]+|keys[^"]+)"') | {
        scanner_keys.symbol_fault("9" * 5_000), scanner_keys.TYPED, scanner_keys.LAYOUT, scanner_reads.CUT}
    away = said_by(cloud, r'"(the (?:cloud|line)[^"{}]+)"') | said_by(fleet.records.leases, r'order_no, "([^"]+)"')
    cards = {*card_bytes.SAYS.values(), *card_bytes.CODES.values(), card.SILENT, *said_by(card, r'detail="(the line[^"]+)"')}
    return {*scans, *away, *said_by(leasing, r'why or "([^"]+)"'), *cards,
            str(RefundWord.REFUSED), str(RefundWord.ABNORMAL)}


def test_every_reason_of_our_own_has_its_chinese_and_none_is_of_nobody():
    assert reasons() == set(WHYS) and all(CHINESE.search(zh) for zh in WHYS.values())


@pytest.mark.parametrize("key", sorted(WORDS))
def test_both_languages_name_the_same_things(key):
    zh, en = WORDS[key]
    assert CHINESE.search(zh) and not CHINESE.search(en)
    names = [{name for _, name, _, _ in string.Formatter().parse(text) if name} - {"zh", "en"} for text in (zh, en)]
    assert names[0] == names[1]


def test_a_removed_line_is_named_in_the_language_of_the_sentence():
    counter = Counter()
    counter.scan(TEA)
    zh, en = counter.press("VOID").words
    assert TEA.item.name_zh in zh and TEA.item.name_en in en and not CHINESE.search(en)


def test_a_reason_of_ours_is_told_in_the_language_of_the_sentence():
    zh, en = Counter().tell(ScanSpoiled("the scan is empty")).words
    assert not re.search("[a-z]", zh) and "the scan is empty" in en
    town = Town()
    town.away.asks_back(no := town.home.sold())
    zh, en = town.away.tell(SaleAnswered(town.away.box.desk.asking[0], no, "the cloud does not answer")).words
    assert "云端无应答" in zh and "does not answer" in en
