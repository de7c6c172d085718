"""Real USB in the machine: fast scanners, printers that lose their paper, cables that are pulled, keyboards that nobody invited."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tests.appliance.goods import NOODLES, NOODLES_FEN, TEA, TEA_FEN
from tests.appliance.machine import KEYPAD, POLE, SCANNER, THIRD
from tests.appliance.shop import PRINTER_LINK, Shop

HAND = {"kind": "evdev", "port": "3-1", "lane": "hand"}                # dummy_hcd's first wire
COUNTER = {"kind": "evdev", "port": f"1-{SCANNER}", "lane": "counter"}
LP0 = {"kind": "usb", "path": "/dev/usb/lp0"}


def test_a_scanner_of_its_own_identity_is_read_whole_or_not_at_all(shop: Shop) -> None:
    shop.gadget("plug_scanner")
    shop.refit(scanner=[COUNTER, HAND])
    shop.await_serving()
    for _ in range(10):                              # as fast as a hand can scan, each at a scanner's pace
        shop.scan(TEA, gadget=True)
    shop.until(lambda: shop.state()["total_fen"] == 10 * TEA_FEN, what="ten teas")
    for _ in range(10):                              # as fast as USB lets it: the kernel holds 64 events for an emulated reader
        shop.gadget("scan", code=TEA, pace_ms=0)
    hand = shop.until(lambda: _all_told(shop, 20), what="ten more, sold or told as spoiled")
    assert shop.state()["total_fen"] == (20 - hand["spoiled"] - hand["misread"]) * TEA_FEN and hand["typed"] == 0


def _all_told(shop: Shop, n: int) -> dict[str, int] | None:
    hand = shop.state()["scanners"]["scanner:hand"]
    return hand if hand["scans"] + hand["spoiled"] + hand["misread"] >= n else None


def test_a_scanner_pulled_in_the_middle_of_a_scan_sells_nothing_by_halves(shop: Shop) -> None:
    shop.gadget("plug_scanner")
    shop.refit(scanner=[COUNTER, HAND])
    shop.await_serving()
    shop.scan(TEA, gadget=True)
    shop.gadget("scan", code=NOODLES, half=True)
    shop.gadget("unplug_scanner")
    shop.await_health("scanner:hand", "gone")
    assert shop.state()["total_fen"] == TEA_FEN
    shop.gadget("plug_scanner")
    shop.until(lambda: "scanner:hand" not in shop.state()["health"], what="the scanner again")
    shop.scan(NOODLES, gadget=True)
    shop.until(lambda: shop.state()["total_fen"] == TEA_FEN + NOODLES_FEN, what="the goods once, whole")


def test_the_printer_at_lp0_says_that_it_has_no_paper_and_prints_when_it_has(shop: Shop) -> None:
    shop.plug_gadget_printer()
    shop.refit(printer=LP0)
    shop.await_health("printer", "ok")
    shop.printer.paper(out=True)
    shop.gadget("printer_status", paper=False)
    shop.await_health("printer", "paper_out")
    shop.scan(TEA)
    shop.key("CASH")
    shop.until(lambda: [paper["state"] for paper in shop.state()["papers"]] == ["due"], what="a paper that waits")
    assert not shop.receipts()
    shop.printer.paper(out=False)
    shop.gadget("printer_status", paper=True)
    shop.until(lambda: [paper["state"] for paper in shop.receipts()] == ["printed"], what="the paper")
    assert not shop.receipts()[0]["copy"]


def test_a_printer_pulled_in_the_middle_of_a_paper_puts_no_second_one_out(shop: Shop) -> None:
    shop.await_health("printer", "ok")
    began = threading.Event()

    def hear(data: bytes, printed: Callable[[bytes], None] = shop.printer.receive) -> None:
        printed(data)
        began.set()

    shop.scan(TEA)
    shop.printer.byte_s = 0.02                       # a slow one: ten seconds for a paper
    shop.printer.receive = hear                      # type: ignore[method-assign]
    shop.key("CASH")
    assert began.wait(20)
    shop.until(lambda: any(paper["state"] == "started" for paper in shop.state()["papers"]), 20, "a paper that has begun")
    shop.machine.unplug("printer")
    shop.await_health("printer", "gone")
    shop.printer.byte_s = 0.0
    shop.plug_printer()
    shop.await_health("printer", "ok")
    time.sleep(8)                                    # longer than the till takes for a paper
    papers = [paper for paper in shop.receipts() if paper["state"] != "torn" and not paper["copy"]]
    assert len(papers) <= 1, "a paper may have come out: it is asked about, and a second one says COPY"
    assert shop.machine.rig.sh("journalctl -b -u tillbox --no-pager").count(" ReceiptPrinted") <= 1


def test_the_second_display_is_a_pole_on_a_serial_line(shop: Shop) -> None:
    from sim.devices.pole import Cd5220, PolePort

    pole = PolePort(Cd5220(), str(shop.folder / "pole"))
    try:
        shop.machine.plug_serial("pole", POLE, "POLE0001", {"type": "serial", "data": {"device": str(shop.folder / "pole")}})
        link = PRINTER_LINK.replace("PRN00001", "POLE0001")
        shop.refit(display=[{"kind": "fb", "path": "/dev/fb0"}, {"kind": "pole", "path": link, "dialect": "cd5220"}])
        shop.await_serving()
        shop.scan(TEA)
        shop.until(lambda: any("7.00" in row for row in pole.pole.rows()), what="the price on the glass")
    finally:
        shop.machine.unplug("pole")
        pole.unplug()


def test_a_strange_keyboard_types_into_nothing_and_is_told(shop: Shop) -> None:
    shop.await_health("printer", "ok")
    shop.machine.plug_keyboard("rogue", THIRD, "ROGUE666")
    shop.until(lambda: [one["state"] for one in shop.state()["keyboards"]["refused"]] == ["refused"], what="the keyboard, taken")
    before = shop.state()
    shop.machine.type(f"{TEA}\n")
    shop.machine.type("TBC-CASH-0001\n")             # as a command card would be
    for key in ("kp_add", "kp_divide", "ret", "f6", "f8"):
        shop.machine.press(key)
    shop.machine.press("delete")                     # ctrl+alt+del's last: systemd must not hear of it either
    time.sleep(3)
    after = shop.state()
    assert (after["phase"], after["lines"], after["scanners"]) == (before["phase"], before["lines"], before["scanners"])
    assert after["health"]["keyboards"] == "strange" and not shop.receipts()
    assert "ROGUE666" not in shop.display_json()["typed"]
    said = shop.machine.rig.sh("journalctl -b -u tillbox --no-pager")
    assert f"USB port 1-{THIRD}" in said
    shop.machine.unplug("rogue")
    shop.until(lambda: "keyboards" not in shop.state()["health"] or shop.state()["health"]["keyboards"] == "ok", what="its end")
    shop.scan(TEA)
    assert shop.state()["total_fen"] == TEA_FEN


@pytest.mark.limit(600)
def test_two_equal_scanners_keep_their_places_over_a_reboot(shop: Shop) -> None:
    machine = shop.machine
    machine.plug_keyboard("twin", THIRD, "SCAN0001")         # the same name, the same serial number, another port
    lanes = [{"kind": "evdev", "port": f"1-{port}", "lane": lane} for port, lane in ((SCANNER, "left"), (THIRD, "right"))]
    shop.refit(scanner=lanes)

    def lane_of_twin() -> str:
        shop.await_serving()
        before = shop.state()["scanners"]
        for name in TEA:
            machine.press(name)
        machine.press("ret")
        return shop.until(lambda: next((lane for lane, count in shop.state()["scanners"].items()
                                        if count != before[lane]), None), what="a scan of one of the two")

    assert lane_of_twin() == "scanner:right"
    machine.rig.sh("systemctl reboot --no-block")
    machine.qmp.event("RESET", 90)
    machine.rig.await_up()
    assert lane_of_twin() == "scanner:right"


def test_the_keypad_pulled_and_put_back_goes_on(shop: Shop) -> None:
    shop.await_health("printer", "ok")
    shop.machine.unplug("keypad")
    shop.await_health("keypad", "gone")
    shop.scan(TEA)
    shop.machine.plug_keyboard("keypad", KEYPAD, "KEYS0001")
    shop.await_health("keypad", "ok")
    shop.key("CASH")
    shop.until(lambda: [paper["state"] for paper in shop.receipts()] == ["printed"], what="the paper of a sale for cash")
