"""The image boots, enrols itself, and sells once: goods by scanner, a QR on the panel, paper, a record at the cloud."""

from __future__ import annotations

from tests.appliance.goods import NOODLES, TEA
from tests.appliance.shop import Shop


def test_the_box_boots_enrols_and_sells_once(shop: Shop) -> None:
    shop.until(lambda: shop.state()["health"]["printer"] == "ok", what="the printer that was just plugged in")
    shop.rung_up(TEA)
    shop.rung_up(NOODLES)
    shop.key("PAY")
    qr = shop.machine.await_qr("https://pay.local/", 30)
    assert shop.phone_scan("wechat", qr, "pay")["paid"]
    shop.until(shop.quiet, what="paper and the record's acknowledgement")
    [paper] = shop.receipts()
    assert "￥9.00" in shop.receipt(paper["n"], "txt").decode()
    told = shop.summary()
    assert told["agree"] and told["sales"] == 1 and told["journal_fen"] == 900, told
