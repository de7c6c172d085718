"""A printer cut off at every byte of a receipt: never two without a mark, never one lost in silence.

The real box, the real driver and the printer model, which keeps its power or not, while the box stays up or starts again.
`TILLBOX_EVERY=1` tries each byte in each of these ways; without it each byte is tried in some of them.
"""

from __future__ import annotations

import asyncio
import os

import pytest

from sim.devices.printer import PrinterModel, Receipt
from tests.counter import TEA
from tests.paper_trail import PaperTill

WAYS = tuple((fault, restarts, silent) for fault in ("line", "power", "box") for restarts in (False, True)
             for silent in (False, True) if not (fault == "box" and not restarts))
ABLE = {3: {}, 2: {"answers_id": False}, 1: {"answers_id": False, "answers_queued": False},
        0: {"answers_id": False, "answers_queued": False, "answers_status": False}}
EVERY = bool(os.environ.get("TILLBOX_EVERY"))


def till_of(level: int, **more) -> PaperTill:
    return PaperTill(PrinterModel(draws=False, **ABLE[level], **more), reads=level > 0)


async def sell(till: PaperTill) -> None:
    till.scan(TEA)
    till.press("CASH")
    await till.serve()


@pytest.fixture(scope="module")
def sold() -> tuple[str, int]:
    """What stands on the receipt, and its length in bytes."""
    till = till_of(3)
    asyncio.run(sell(till))
    (receipt,) = till.model.receipts()
    return receipt.text, len(receipt.raw) + len(b"\x1b@\x1c&")


def unmarked(till: PaperTill, text: str) -> list[Receipt]:
    """Pieces that show any of the receipt and do not say COPY."""
    shop = text.split("\n")[0]
    return [r for r in till.model.receipts() if "COPY" not in r.text and r.text.strip() and shop[:1] in r.text]


async def broken_off(level: int, cut: int, fault: str, restarts: bool, silent: bool, text: str) -> str:
    """One receipt cut off after `cut` bytes, and all that follows; what the books call it in the end."""
    at = (level, cut, fault, restarts, silent)
    till = till_of(level)
    await till.look()
    till.line.cut, till.line.silent = cut, silent
    if fault == "power":
        till.line.broke = lambda: till.model.power(False)
    elif fault == "box":
        till.tell = lambda *events: None if till.line.left == 0 else PaperTill.tell(till, *events)   # type: ignore[method-assign]
    till.scan(TEA)
    till.press("CASH")
    await till.serve()
    if fault == "box":
        del till.tell                                  # type: ignore[attr-defined]
    till.model.power(True)
    if restarts:
        till.cut_power()
    till.line.silent = False
    await till.look()
    await till.look()
    (paper,) = till.box.books.papers.values()
    pieces = unmarked(till, text)
    assert len(pieces) <= 1, at
    if paper.state == "printed":
        assert paper.proof < 2 or [p.text for p in pieces] == [text], at
        assert paper.proof == min(level, paper.proof), at
        return f"printed {paper.proof}"
    assert paper.state == "unsure", at                 # a person is asked: nothing waits, nothing was forgotten
    assert any("COPY" in words for words in till.box.desk.words), at
    till.press("REPRINT")
    await till.serve()
    last = till.model.receipts()[-1]
    assert (last.state, last.text) == ("whole", f"*** 副本 COPY 1 ***\n{text}"), at
    assert len(unmarked(till, text)) <= 1, at
    assert till.box.books.papers[paper.job].state == "copied", at
    return "unsure"


@pytest.mark.parametrize("what", ["paper", "cover"])
def test_every_line(what, sold):
    """The roll ends, or somebody opens the cover, behind each line; then it goes on where it stood, and the box asks."""
    text, _ = sold

    async def story(lines: int, restarts: bool) -> None:
        till = till_of(3)
        await till.look()
        if what == "paper":
            till.model.paper(lines_left=lines)
        else:
            till.model.cover_after(lines)
        await sell(till)
        (paper,) = till.box.books.papers.values()
        assert paper.state == "unsure", lines
        if restarts:
            till.cut_power()
        await till.look()                              # the box sees why
        assert dict(till.box.desk.health)["printer"] == {"paper": "paper_out", "cover": "cover_open"}[what]
        till.model.paper(out=False)
        till.model.cover(False)
        await till.look()
        assert [r.text for r in unmarked(till, text)] == [text], lines
        assert any("COPY" in words for words in till.box.desk.words), lines

    async def stories() -> None:
        for lines in range(1, text.count("\n")):
            await story(lines, lines % 2 == 0)
    asyncio.run(stories())


@pytest.mark.parametrize("level", [3, 2, 1, 0])
def test_every_byte(level, sold):
    text, length = sold

    async def stories() -> list[str]:
        ends = []
        for cut in range(1, length):
            for n, way in enumerate(WAYS):
                if EVERY or (cut + n) % (len(WAYS) if level in (3, 2) else 4 * len(WAYS)) == 0:
                    ends.append(await broken_off(level, cut, *way, text))
        return ends
    ends = asyncio.run(stories())
    assert ends.count("unsure") > len(ends) // 2
    assert level == 0 or not ends.count("printed 0")
