"""Printed command cards: what they carry, what they do at the till, and everything for which they are refused."""

from __future__ import annotations

import io
import random
import string

import msgspec
import pytest

from device.cards import SHEET, main
from device.config import parse, show
from device.drivers.input.keycard_bytes import HEAD, SUPERVISOR, Card, CardRefused, card_of, card_text
from device.drivers.input.scanner_keys import symbol_fault
from device.push.checks import _SECRET
from device.txn.approval import WRONG_MAX, badge_hash, pin_hash
from device.txn.inputs import KEYS, Said, Scanned
from device.txn.keycards import is_card
from device.txn.words import say
from device.types import Cards, Supervisor
from tests.counter import TEA, TERMS, Counter

KEY, STORE = "k" * 32, "S01"
BOSS_CARD = card_text(KEY, STORE, SUPERVISOR, 77, KEYS)
BOSS = Supervisor("王", badge_hash(BOSS_CARD), pin_hash("4711", "x"))
SHOP = msgspec.structs.replace(TERMS, cards=Cards(KEY, STORE, ("00000R",)), approve_refund_fen=300, supervisors=(BOSS,))


def card(keys: str, number: int = 5, *, key: str = KEY, store: str = STORE) -> Scanned:
    return Scanned(card_text(key, store, keys, number, KEYS))


def refused_for(counter: Counter, scan: Scanned, word: str, **values) -> bool:
    before = msgspec.to_builtins(counter.box.books)
    verdict = counter.tell(scan)
    return verdict.refused and verdict.words == say(word, **values) and not verdict.facts and (
        msgspec.to_builtins(counter.box.books) == before)


# The text.

@pytest.mark.parametrize("keys", [*(key for key in KEYS if not key.isdigit()), "7", "00", "123456789", "1-PAY", "500-ENTER",
                                  SUPERVISOR])
def test_every_key_of_the_keypad_goes_on_a_card_and_comes_back(keys: str) -> None:
    text = card_text(KEY, STORE, keys, 12345, KEYS)
    told = card_of(text, key=KEY, store=STORE, revoked=(), known=KEYS)
    typed, _, key = keys.rpartition("-") if not keys.isdigit() else (keys, "", "")
    assert told == Card(STORE, typed, key, "000C1S") and told.supervisor == (keys == SUPERVISOR)
    assert is_card(text) and not symbol_fault(text) and set(text) <= set(string.digits + string.ascii_uppercase + " $%*+-./:")


@pytest.mark.parametrize("keys", ["", "pay", "PAYY", "PAY-1", "1-2-PAY", "1234567890", "1-", "-PAY", "SUPERVISOR-1", "PAY.CASH",
                                  "１-PAY", "1-SUPERVISOR"])
def test_what_is_no_key_goes_on_no_card(keys: str) -> None:
    with pytest.raises(ValueError):
        card_text(KEY, STORE, keys, 5, KEYS)
    for key, store in (("short", STORE), (KEY, "s1"), (KEY, "")):
        with pytest.raises(ValueError):
            card_text(key, store, "PAY", 5, KEYS)


def test_a_card_with_any_character_changed_lost_or_added_is_refused() -> None:
    text = card_text(KEY, STORE, "1-PAY", 5, KEYS)
    forged = {text[:at] + char + text[at + 1:] for at in range(len(text)) for char in "0AZ.-\x00é" if text[at] != char}
    forged |= {text[:at] + text[at + 1:] for at in range(len(text))} | {text + "0", text * 2, text.lower(), HEAD, ""}
    for one in forged:
        with pytest.raises(CardRefused):
            card_of(one, key=KEY, store=STORE, revoked=(), known=KEYS)


def test_cards_of_one_store_say_nothing_of_another_s_key() -> None:
    dice = random.Random(4)
    with pytest.raises(CardRefused, match="bad"):
        for _ in range(200):
            guessed = "".join(dice.choice("0123456789ABCDEFGHJKMNPQRSTVWXYZ") for _ in range(16))
            card_of(f"TBK.S01.DRAWER.000005.{guessed}", key=KEY, store=STORE, revoked=(), known=KEYS)


# At the till.

def test_a_sale_without_a_keypad() -> None:
    counter = Counter(SHOP)
    counter.tell(card("3-QTY"))
    counter.scan(TEA)
    assert counter.box.books.basket.total_fen == 1500
    counter.tell(card("VOID"))
    assert not counter.box.books.basket.lines
    counter.scan(TEA)
    counter.tell(card("50"))
    counter.tell(card("00"))
    assert counter.box.desk.typed == "5000"
    counter.tell(card("CASH"))
    (sale,) = counter.box.books.sales.values()
    assert (sale.amount_fen, sale.change_fen) == (500, 4500) and not counter.box.desk.typed


def test_a_card_does_what_its_key_does_to_the_letter() -> None:
    for keys in ("PAY", "1-PAY", "CASH", "HOLD", "CANCEL", "CLEAR", "QTY", "2-VOID", "REFUND", "X", "Z", "DRAWER", "REPRINT",
                 "700-ENTER"):
        by_card, by_key = Counter(SHOP), Counter(SHOP)
        for counter in (by_card, by_key):
            counter.scan(TEA)
        by_card.tell(card(keys))
        by_key.press(keys.replace("-", " "))
        assert msgspec.to_builtins(by_card.box.books) == msgspec.to_builtins(by_key.box.books), keys
        assert by_card.box.desk == by_key.box.desk, keys


def test_while_a_payment_is_open_no_card_does_anything() -> None:
    counter = Counter(SHOP)
    counter.scan(TEA)
    counter.tell(card("PAY"))
    assert counter.order_no
    for keys in ("CASH", "CANCEL", "PARK", "PAY", "9", SUPERVISOR):
        assert refused_for(counter, card(keys, 77), "keycard_paying"), keys
    counter.say(counter.order_no, Said.PAID, 500)
    assert len(counter.box.books.sales) == 1


def test_cards_of_others_forged_or_revoked_or_without_a_key_do_nothing() -> None:
    counter = Counter(SHOP)
    counter.scan(TEA)
    assert refused_for(counter, card("CASH", key="x" * 32), "keycard_bad")
    assert refused_for(counter, card("CASH", store="S02"), "keycard_store")
    assert refused_for(counter, card("CASH", 24), "keycard_revoked")
    assert refused_for(counter, Scanned("TBK.S01.CASH"), "keycard_bad")
    assert refused_for(counter, Scanned(BOSS_CARD.lower()), "keycard_bad")      # caps lock: no part of it stands on a screen
    plain = Counter(TERMS)
    plain.scan(TEA)
    assert refused_for(plain, card("CASH"), "keycard_off") and refused_for(plain, Scanned("TBK.S01.CASH.000005."), "keycard_off")


# Supervisors.

def refunding() -> Counter:
    counter = Counter(SHOP)
    counter.scan(TEA)
    counter.press("PAY")
    no = counter.order_no
    counter.say(no, Said.PAID, 500)
    counter.tell(card("REFUND"))
    counter.tell(Scanned(no))
    counter.tell(card("ENTER"))
    return counter


def test_a_supervisor_s_card_says_yes_only_with_its_pin() -> None:
    counter = refunding()
    assert refused_for(Counter(SHOP), Scanned(BOSS_CARD), "badge_idle")
    assert refused_for(counter, card("4711-ENTER"), "keycard_pin")
    counter.tell(Scanned(BOSS_CARD))
    assert counter.box.desk.mode == "pin" and refused_for(counter, card("4711"), "keycard_pin")
    assert not counter.box.books.refunds
    counter.press("4 7 1 1 ENTER")
    (refund,) = counter.box.books.refunds.values()
    assert refund.approved_by == "王"
    assert not any(BOSS_CARD[-16:].encode() in row.facts or b"4711" in row.facts for row in counter.journal.durable)


def test_a_card_that_head_office_revoked_or_that_nobody_registered_is_no_supervisor_s() -> None:
    counter = refunding()
    revoked = card_text(KEY, STORE, SUPERVISOR, 24, KEYS)
    assert refused_for(counter, Scanned(revoked), "keycard_revoked")
    assert refused_for(counter, card(SUPERVISOR, 78), "badge_unknown")          # genuine, and no [[supervisor]] has it


def test_five_wrong_pins_shut_the_badge_over_every_boot_until_another_pin_is_set() -> None:
    counter = refunding()
    counter.tell(Scanned(BOSS_CARD))
    for n in range(1, WRONG_MAX + 1):
        counter.press("1 1 1 1 ENTER")
        assert counter.box.books.pins["王"].wrong == n
        counter.cut_power()                                                     # each try was on the card before it was answered
        assert counter.box.books.pins["王"].wrong == n
        counter.press("REFUND")
        counter.tell(Scanned(next(iter(counter.box.books.sales))))
        counter.press("ENTER")
        if n < WRONG_MAX:
            counter.tell(Scanned(BOSS_CARD))
            assert counter.box.desk.mode == "pin"
    assert refused_for(counter, Scanned(BOSS_CARD), "pin_locked", name="王")
    fresh = msgspec.structs.replace(BOSS, pin=pin_hash("4712", "y"))
    counter.terms = msgspec.structs.replace(SHOP, supervisors=(fresh,))
    from device.txn.inputs import Configured
    counter.tell(Configured(counter.terms))
    counter.tell(Scanned(BOSS_CARD))
    counter.press("4 7 1 2 ENTER")
    assert len(counter.box.books.refunds) == 1 and not counter.box.books.pins


def test_the_card_key_is_shown_to_nobody() -> None:
    told = {"box": "b", "box_no": "000001", "tenant": "t", "cards": {"card_key": KEY, "store": STORE}}
    assert "card_key" in _SECRET                                        # in a pushed configuration: sealed, or refused
    assert KEY not in repr(SHOP) and KEY not in repr(parse(told)) and KEY not in str(show(parse(told)))


# The sheet.

@pytest.mark.parametrize("kind", ["QRCode", "Code128"])
def test_a_printed_sheet_holds_a_card_of_each_key_and_every_one_reads_back(kind: str, tmp_path, capsys) -> None:
    import zxingcpp
    from PIL import Image
    toml = tmp_path / "box.toml"
    toml.write_text(f'box = "b"\nbox_no = "000001"\ntenant = "t"\n[cards]\ncard_key = "{KEY}"\nstore = "{STORE}"\n')
    assert main(["--config", str(toml), "--out", str(tmp_path / "cards"), *["--bars"] * (kind == "Code128")]) == 0
    sheets = capsys.readouterr().out.split()
    formats = getattr(zxingcpp.BarcodeFormat, kind)
    read = [found.text for sheet in sheets for found in zxingcpp.read_barcodes(Image.open(sheet).convert("L"), formats=formats)]
    told = [card_of(text, key=KEY, store=STORE, revoked=(), known=KEYS) for text in read]
    assert sorted("-".join(filter(None, (one.typed, one.key))) for one in told) == sorted(SHEET)
    assert len({one.number for one in told}) == len(SHEET)
    assert {key for key in KEYS if not key.isdigit()} <= {one.key for one in told}
    assert main(["SUPERVISOR-1", "--config", str(toml)]) == 2 and "no key of the keypad" in capsys.readouterr().err


def test_a_supervisor_s_card_comes_with_what_the_configuration_keeps_of_it(tmp_path, capsys, monkeypatch) -> None:
    import tomllib

    import zxingcpp
    from PIL import Image
    toml = tmp_path / "box.toml"
    toml.write_text(f'box = "b"\nbox_no = "000001"\ntenant = "t"\n[cards]\ncard_key = "{KEY}"\nstore = "{STORE}"\n')
    monkeypatch.setattr("sys.stdin", io.StringIO("4711\n"))
    assert main(["supervisor", "王店长", "--config", str(toml), "--out", str(tmp_path / "boss")]) == 0
    said, sheet = capsys.readouterr().out.rsplit("\n", 2)[:2]
    (boss,) = tomllib.loads(said)["supervisor"]
    (found,) = zxingcpp.read_barcodes(Image.open(sheet).convert("L"))
    assert boss["badge"] == badge_hash(found.text) and boss["name"] == "王店长" and found.text.split(".")[3] in said
    assert "4711" not in said and found.text not in said and KEY not in said
    monkeypatch.setattr("sys.stdin", io.StringIO("47\n"))
    assert main(["supervisor", "王店长", "--config", str(toml)]) == 2
    toml.write_text('box = "b"\nbox_no = "000001"\ntenant = "t"\n')
    assert main(["--config", str(toml)]) == 1
