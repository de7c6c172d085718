"""What a box that tried everything says on paper before the first sale of a day: all green, or the parts that are not."""

from __future__ import annotations

from device.txn.books import Books
from device.txn.desk import Desk, Verdict
from device.txn.effects import Cut, Pair, PaperPart, Ruler, Text
from device.txn.inputs import BoxTried
from device.txn.minting import paper_due
from device.txn.words import say
from device.types import Stamp


def on_box_tried(b: Books, d: Desk, e: BoxTried, at: Stamp) -> Verdict:
    """Its slip; the words stand on the screen only while nobody buys."""
    facts = [paper_due(b, "opening", e.day, ticket(e, at, d.terms.box))]
    if b.basket.lines or b.basket.order_no:
        return Verdict(facts)
    return Verdict(facts, words=say("opening_green" if e.well else "opening_ill"), tone="good" if e.well else "bad")


def ticket(e: BoxTried, at: Stamp, box: str) -> tuple[PaperPart, ...]:
    parts: list[PaperPart] = [Text("开业自检 / Opening check", "c", 2), Ruler(), Pair(box, at.wall[:19].replace("T", " ")),
                              Pair("营业日 / Business day", e.day), Ruler()]
    if e.well:
        parts.append(Text("全部正常 / All green", "c", 2, True))
    for ill in e.ills:
        parts += [Text(f"[{ill.code}]", "l", 1, True), *([Text(ill.zh)] if ill.zh else []), Text(ill.en), Ruler()]
    if e.more:
        parts.append(Text(f"另有 {e.more} 项，见 tillbox doctor / {e.more} more: tillbox doctor"))
    return (*parts, Cut())
