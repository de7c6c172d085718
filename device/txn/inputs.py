"""What the outside reports.  Every input says who spoke; none carries a time, for a stamp comes beside it."""

from __future__ import annotations

import enum

import msgspec

from device.types import Account, Found, Terms


class Input(msgspec.Struct, frozen=True, tag=True):
    """Base of all inputs."""


class Said(enum.StrEnum):
    """A channel's word on an order, already verified and mapped.  Only PAID, CLOSED, REFUSED and GIVEN_BACK are definite."""

    PAID = "paid"
    OPEN = "open"                  # known and unpaid
    ABSENT = "absent"              # no such order at the channel
    CLOSED = "closed"
    REFUSED = "refused"            # our request will never be taken: configuration or rules; `detail` says which
    GIVEN_BACK = "given_back"      # an undo that itself moved the money back
    UNKNOWN = "unknown"            # no answer, or one that proves nothing


class RefundWord(enum.StrEnum):
    """A channel's word on a refund."""

    DONE = "done"
    PROCESSING = "processing"
    ABSENT = "absent"
    REFUSED = "refused"            # will never happen under this number
    ABNORMAL = "abnormal"          # accepted, then failed: the payer's account cannot take it
    UNKNOWN = "unknown"


class Started(Input, frozen=True):
    """The daemon is up: `boot` a fresh boot id, `software` its version.  First input of every boot."""

    boot: str
    software: str
    terms: Terms
    seed: str = ""                 # 128 random bits, base64url: names a new journal, unused otherwise
    kid: str = ""                  # thumbprint of the record key
    leave_kid: str = ""            # a person wants another key than this one
    mended: bool = False           # rows were taken from the second copy, or may be lost: numbers skip
    orders_seen: int = 0           # the highest counters that any readable piece of either store names
    boots_seen: int = 0
    renew: str = ""                # why the chain must begin anew under `seed`; empty: it goes on
    after: str = ""                # head of a chain of which nothing else is left
    wallets_stop: str = ""         # why only cash is taken until the cloud has spoken
    up_ms: int = 0                 # how long the machine was up when this boot's clock began; 0 where nobody knows


class Configured(Input, frozen=True):
    """New terms, applied between customers."""

    terms: Terms


class Scanned(Input, frozen=True):
    """The scanner read `symbol`; `found` is what the price list knows of it, None when nothing.  `lane` names the scanner.

    `cause` says why nothing, one of `goods.CAUSES`: "" is that no list knows it.
    """

    symbol: str
    found: Found | None = None
    lane: str = ""
    cause: str = ""

    def __repr__(self) -> str:           # what is no goods may be a payer's code
        return f"Scanned({self.symbol if self.found else f'{len(self.symbol)} characters'!r})"


class ScanSpoiled(Input, frozen=True):
    """Something was scanned that is no symbol: too long, control characters, a broken burst.  `why` is one sentence.

    `lane` names the scanner where there are several.
    """

    why: str
    lane: str = ""


class Pressed(Input, frozen=True):
    """One key of the keypad, by its name in `KEYS`."""

    key: str


KEYS = (*"0123456789", "00", "ENTER", "CLEAR", "QTY", "VOID", "PAY", "CODE", "CASH", "CHECK", "HOLD", "PARK", "CANCEL",
        "REFUND", "REPRINT", "DRAWER", "X", "Z")


class QrReady(Input, frozen=True):
    """The channel took the order and answered with the text of its QR."""

    order_no: str
    qr: str


class ChannelSaid(Input, frozen=True):
    """A channel's word on one of our orders.  `amount_fen` is what it holds, 0 when it did not say.

    UNKNOWN with an amount: it took so much from the payer, and cannot say yet whether that is ours.
    """

    order_no: str
    said: Said
    amount_fen: int = 0
    channel_no: str = ""
    detail: str = ""
    wallet: str = ""               # which wallet really paid, where an aggregator says so
    undo: bool = False             # the answer to an undo: PAID then says that it was left alone
    payer: str = ""                # what a card terminal may show of a card: "****1234"


class RefundSaid(Input, frozen=True):
    """A channel's word on one of our refunds."""

    refund_no: str
    word: RefundWord
    amount_fen: int = 0
    channel_no: str = ""
    detail: str = ""


class BillSaid(Input, frozen=True):
    """The bill of `account` for one of its channel's days, when `ready`; else `why` not yet.

    Each row is (kind `paid` or `refund`, order_no, refund_no, amount_fen, channel_no).
    """

    account: Account
    day: str
    ready: bool = False
    rows: tuple[tuple[str, str, str, int, str], ...] = ()
    why: str = ""


class Printed(Input, frozen=True):
    """The job left, and nothing speaks against it.

    `proof` is how well it is known to stand on paper: 0 sent, not confirmed; 1 sent, and the printer is well; 2 it got past the
    cutter with paper in; 3 it answered the job's own number.
    """

    job: int
    proof: int


class PrintUnsure(Input, frozen=True):
    """Bytes left and nothing proves that all of them reached paper."""

    job: int
    why: str


class PrintRefused(Input, frozen=True):
    """Not one byte of the job left: the printer was gone or refused.  `word` is its health."""

    job: int
    word: str
    why: str


class DrawerKicked(Input, frozen=True):
    """The drawer was kicked, or will never be: a drawer must not open an hour late."""

    kick: int


class Signed(Input, frozen=True):
    """The signer's token over the payload of record `seq`."""

    seq: int
    token: str


class ReceiptSigned(Input, frozen=True):
    """The signer's token over the shown receipt of `order_no`."""

    order_no: str
    token: str


class KeyReady(Input, frozen=True):
    """A fresh record key lies ready: its thumbprint, and its public half as a JWK (JSON text); or `why` there is none yet."""

    kid: str
    jwk: str
    why: str = ""


class KeyGone(Input, frozen=True):
    """Key `kid` is destroyed: nobody signs under it any more; or `why` it is not yet."""

    kid: str
    why: str = ""


class ClockSaid(Input, frozen=True):
    """Somebody else said the time: at `mono_ms` of this boot it was `at` (RFC 3339), give or take `error_ms`.

    `source` is `ack` or `date`, `rtt_ms` how long the way took, 0 unknown.
    """

    mono_ms: int
    at: str
    error_ms: int
    rtt_ms: int
    source: str


class DeviceSaid(Input, frozen=True):
    """Health of a part in one word (`ok gone paper_out paper_low cover_open off error ...`) and a sentence for a person."""

    part: str
    word: str
    why: str = ""


class LinkSaid(Input, frozen=True):
    """The line to the broker (`up` or `down`), whether a collector listens, and what still waits for it."""

    up: bool
    collector: bool = False


class CloudStood(Input, frozen=True):
    """The cloud's answer to our hello, or its verdict later: how it stands with journal `jid` of ours.

    `verdict` is `ok`, `fork` or `rollback`; `seed` 128 random bits, base64url, for a new journal's name; `why` one sentence;
    `upto` and `head` are what the cloud has of it.
    """

    jid: str
    verdict: str
    seed: str
    why: str = ""
    upto: int = 0
    head: str = ""


class Recalled(Input, frozen=True):
    """What the journal's index holds of `order_no`: encoded facts, oldest first; empty when the box never saw it.

    `trimmed`: its oldest rows were let go of, and the cloud may know more.
    """

    order_no: str
    facts: tuple[bytes, ...] = ()
    trimmed: bool = False


class SaleAnswered(Input, frozen=True):
    """The cloud's answer to a question about another box's sale; `why` one sentence when there is no lease in it.

    `body` is the sale's record as its box signed it (JSON) and `at` its time; `lease` names the right to give back at most
    `left_fen` of each paid order, as (order_no, fen), for `for_ms` from the question on; `parts` refunds were begun before.
    """

    ask_id: str
    order_no: str
    why: str = ""
    lease: str = ""
    for_ms: int = 0
    body: bytes = b""
    at: str = ""
    left_fen: tuple[tuple[str, int], ...] = ()
    parts: int = 0


class ConfigSaid(Input, frozen=True):
    """Where a pushed configuration stands: `staged trial active rolled_back deferred refused`; `digest` names the document.

    `waits`: the box should run with another configuration than it does, as soon as no customer stands there.  `n` numbers the
    words that are to be recorded; a word may come again, and 0 is of one that is no record.
    """

    epoch: int
    version: int
    digest: str
    state: str
    why: str = ""
    waits: bool = False
    n: int = 0


class Ill(msgspec.Struct, frozen=True):
    """One thing that an opening check found: the doctor's code, a sentence in Chinese ("" for none) and in English."""

    code: str
    zh: str
    en: str


class BoxTried(Input, frozen=True):
    """Everything was tried before the first sale of business day `day`; `more` were found that are not named."""

    day: str
    well: bool
    ills: tuple[Ill, ...] = ()
    more: int = 0


class Rang(Input, frozen=True):
    """An alarm that was asked for."""

    key: tuple[str, ...]


class Asked(Input, frozen=True):
    """A command from afar; the verdict's `told` is its answer.  `by` is `who:role`, proven by whoever hands the command in.

    `answered` is what became of a question, which is answered outside: "" while it was not.  `recalled` are the journal's rows of
    the sale that a refund names.
    """

    id: str
    verb: str
    arg: str = ""
    by: str = ""
    answered: str = ""
    recalled: tuple[bytes, ...] = ()
    typed: str = ""                      # of the console: its entry as JSON, see `visits.py`
