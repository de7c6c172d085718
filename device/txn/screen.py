"""The customer's screen as a tree of plain values.  Drivers draw it; `render` in `machine.py`'s neighbour builds it."""

from __future__ import annotations

import msgspec


class Line(msgspec.Struct, frozen=True):
    """One basket line.  `qty` is text ("2", "0.512 kg"); `other` its name in the other language, for a glass that lacks this one's
    letters."""

    name: str
    qty: str
    amount_fen: int
    other: str = ""


class Screen(msgspec.Struct, frozen=True):
    """One frame's worth of truth.

    `phase` as on `/state`; `title` and `notice` are sentences for a person; `big` the line read at two metres (total,
    amount paid, change); `qr` the text of a live payment QR or empty: it is never set for an attempt that is not live.
    `receipt_qr` is the receipt of the sale just shown, as a QR beside `big`, while no paper can be had; never with `qr`.
    `order_no` is the attempt that `qr` belongs to.  `deadline` is (boot, monotonic ms) and the display counts down to
    it.  `tone` is `plain good bad wait`.  `footer` says what is not well (printer, channel, link), in words.  `words`, Chinese
    and English, stand beside the QR and on the cashier's side: a QR without them is not ours.  `cash_only`: no wallet is taken
    now.
    """

    phase: str
    title: str
    lines: tuple[Line, ...] = ()
    lines_total: int = 0
    total_fen: int = 0
    big: str = ""
    qr: str = ""
    order_no: str = ""
    wallets: tuple[str, ...] = ()
    deadline: tuple[str, int] | None = None
    notice: str = ""
    tone: str = "plain"
    footer: tuple[str, ...] = ()
    typed: str = ""
    lang: str = "zh"
    training: bool = False
    receipt_qr: str = ""
    words: tuple[str, ...] = ()
    change_fen: int = 0
    cash_only: bool = False
