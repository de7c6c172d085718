"""A sale that leaves nothing behind: the program's own way of a sale, on this box's rules, in a folder that goes away.

Run as a process of its own after a start, so that a release which cannot sell is not kept.  The real journal, the devices and the
channels are not touched: the daemon that asks for it runs, and has them open.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from device.types import Found, Item

GOODS = Found(Item("6902538004045", "自检", "Self-check", 500))


def sold(path: str, folder: Path) -> str:
    """What went wrong; "" when a sale for cash was made, signed for, printed, written and read again."""
    from device.box import Box
    from device.config import to_terms
    from device.push.layers import Layers
    from device.ruled import ruled
    from device.store_forward.journal import Journal
    from device.txn.effects import Effect, Print
    from device.txn.inputs import Input, Pressed, Printed, Scanned, Signed, Started
    from device.txn.screen import Screen
    from device.txn.show import render
    from device.types import Stamp

    config = Layers(Path(path).read_text(encoding="utf-8"), which=path).config()
    terms, _ = ruled(to_terms(config), config)
    identity = {"box": config.box, "mode": "training"}
    box = Box(Journal(folder / "dry.db", identity=identity))
    at = Stamp("dry", 1, "2026-01-01T12:00:00+08:00", "unset")
    printed = 0

    def tell(event: Input) -> None:
        nonlocal printed
        start: list[Effect] = box.handle(event, at)[1]
        for effect in start:
            if isinstance(effect, Print):
                printed += 1
                tell(Printed(effect.job, 3))
            elif type(effect).__name__ == "SignRecord":
                tell(Signed(effect.seq, f"dry-{effect.seq}"))          # type: ignore[attr-defined]

    tell(Started("dry", "dry", terms, "c2VlZA", "kid"))
    tell(Scanned(GOODS.item.gtin, GOODS))
    for key in ("1", "0", "00", "CASH"):
        tell(Pressed(key))
    screen = render(box.books, box.desk)
    assert isinstance(screen, Screen)
    sales = box.books.chain.sales_fen
    box.journal.close()
    again = Box.folded(Journal(folder / "dry.db", identity=identity)).chain.sales_fen
    if not sales or again != sales:
        return f"a sale for cash came to {sales} fen, and to {again} after a start"
    return "" if printed else "a sale for cash had no receipt"


def main(argv: list[str]) -> int:
    """`python -m device.update.dry_sale BOX.TOML`: 0 when it went well, else a sentence on standard output."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            fault = sold(argv[0], Path(folder))
        except Exception as why:  # noqa: BLE001 - whatever it is, a release with it must not be kept
            fault = f"{type(why).__name__}: {why}"
    print(fault)
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
