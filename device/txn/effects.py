"""What the outside should be doing.

Four kinds, declared on the class: *repeatable* effects are asked again by their pace for as long as they are wanted;
*numbered* ones run once per number, and a lost answer makes them unsure, never repeated; *once* effects are started at
most once over all boots; *passing* ones go with the row that decided them, and are lost with it.  `binds` says that the
journal must be synced first.  `key` names the entity the effect belongs to, so that only what was touched is looked at.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from device.types import Account


class Effect(msgspec.Struct, frozen=True, tag=True):
    """Base of all effects."""

    kind: ClassVar[str] = "repeatable"
    binds: ClassVar[bool] = False
    part: ClassVar[str] = ""             # the driver that carries it out; channels add their name: "channel:wechat"


class Intent(msgspec.Struct, frozen=True):
    """Every field of a payment request, frozen before its first byte leaves; a retry is built from this and nothing else."""

    order_no: str
    channel: str
    account: Account
    amount_fen: int
    description: str
    made_at: str                         # RFC 3339 with offset
    expires_at: str                      # RFC 3339 with offset
    way: str = "qr"                      # qr: on our display; code: the payer's code scanned; card: at the terminal
    extras: tuple[tuple[str, str], ...] = ()   # further request fields, as sorted pairs: instalment periods, who bears the fee


class RefundIntent(msgspec.Struct, frozen=True):
    """Every field of a refund request, frozen likewise."""

    refund_no: str
    order_no: str
    channel: str
    account: Account
    amount_fen: int
    paid_fen: int
    reason: str
    made_at: str
    channel_no: str = ""                 # the channel's own number of what was paid; some refund by nothing else
    way: str = "qr"
    order_made_at: str = ""


class PlaceOrder(Effect, frozen=True):
    """Ask the channel for a QR.  Answers QrReady or ChannelSaid."""

    binds: ClassVar[bool] = True
    intent: Intent


class ChargeCode(Effect, frozen=True):
    """Charge the payer's code, at most once over all boots.  Answers ChannelSaid.  The code lives in memory only."""

    kind: ClassVar[str] = "once"
    binds: ClassVar[bool] = True
    intent: Intent
    code: str

    def __repr__(self) -> str:           # a bearer token: whoever prints an effect must not print it
        return f"ChargeCode({self.intent!r}, code=...)"


class ChargeCard(Effect, frozen=True):
    """Start one sale at the card terminal, at most once over all boots: a second request may charge a second time.

    Answers ChannelSaid.  Afterwards only QueryOrder, by our order number, tells what became of it.
    """

    kind: ClassVar[str] = "once"
    binds: ClassVar[bool] = True
    intent: Intent


class QueryOrder(Effect, frozen=True):
    """Ask what became of an order.  Answers ChannelSaid.  `watch`: it is closed and only watched, at a slow pace."""

    intent: Intent
    watch: bool = False


class CloseOrder(Effect, frozen=True):
    """Undo an order by the way its channel has: close, cancel or reverse.  Answers ChannelSaid.

    CLOSED says that it is dead and moved no money, GIVEN_BACK that the undo itself gave the money back, PAID that it is
    paid and was left alone, REFUSED that it can never be undone: nothing moved.
    """

    binds: ClassVar[bool] = True
    intent: Intent
    not_before_ms: int = 0               # monotonic, of this boot: a channel refuses an undo that comes too soon


class RefundOrder(Effect, frozen=True):
    """Give money back.  Answers RefundSaid."""

    binds: ClassVar[bool] = True
    intent: RefundIntent


class QueryRefund(Effect, frozen=True):
    """Ask what became of a refund.  Answers RefundSaid."""

    intent: RefundIntent


class FetchBill(Effect, frozen=True):
    """Read the bill of `account` for one of its channel's days (YYYY-MM-DD, as the channel counts them).  Answers BillSaid."""

    account: Account
    day: str


# PaperPart is defined below; msgspec resolves the annotation when it is first used.
class Print(Effect, frozen=True):
    """Print `paper`, once under this job number.  Answers Printed or PrintUnsure; DriverGone means that no byte left."""

    kind: ClassVar[str] = "numbered"
    binds: ClassVar[bool] = True
    part: ClassVar[str] = "printer"
    job: int
    paper: tuple[PaperPart, ...]


class KickDrawer(Effect, frozen=True):
    """Open the drawer, once.  Answers DrawerKicked."""

    kind: ClassVar[str] = "once"
    binds: ClassVar[bool] = True
    part: ClassVar[str] = "printer"
    kick: int


class Reboot(Effect, frozen=True):
    """Start the box anew for command `id`, once over all boots.  Answers DeviceSaid, if anything is left to answer."""

    kind: ClassVar[str] = "once"
    binds: ClassVar[bool] = True
    part: ClassVar[str] = "system"
    id: str


class PlaySound(Effect, frozen=True):
    """Let a result be heard, now or never: `name` a key of NOTES, `amount_fen` what a voice may say.  Answers DeviceSaid."""

    kind: ClassVar[str] = "passing"
    part: ClassVar[str] = "sound"
    name: str
    amount_fen: int = 0


class SignRecord(Effect, frozen=True):
    """Sign the payload of record `seq` as one compact token, under key `kid`.  Answers Signed."""

    part: ClassVar[str] = "signer"
    seq: int
    payload: bytes
    kid: str = ""                        # "": the key that the signer was made with


class SignReceipt(Effect, frozen=True):
    """Sign a receipt that is shown instead of printed, as a token of its own that is no record.  Answers ReceiptSigned."""

    part: ClassVar[str] = "signer"
    order_no: str
    payload: bytes
    kid: str = ""


class MakeKey(Effect, frozen=True):
    """Make the key that follows `kid`, or find the one that was made for it before.  Answers KeyReady."""

    part: ClassVar[str] = "signer"
    binds: ClassVar[bool] = True
    kid: str


class DropKey(Effect, frozen=True):
    """Destroy key `kid`: its last record, which introduced key `then`, is on the card.  Answers KeyGone."""

    part: ClassVar[str] = "signer"
    binds: ClassVar[bool] = True
    kid: str
    then: str


class TrySigner(Effect, frozen=True):
    """See whether a signer that failed can sign again, by a signature that is thrown away.  Answers DeviceSaid, `ok` when it can.

    `breaks` counts how often it failed since it last signed a record: the more, the longer until it is tried.
    """

    part: ClassVar[str] = "signer"
    breaks: int


class Recall(Effect, frozen=True):
    """Look an order up in the journal's index.  Answers Recalled."""

    part: ClassVar[str] = "journal"
    order_no: str


class AskSale(Effect, frozen=True):
    """Ask the cloud for another box's sale and a lease to give its money back.  Answers SaleAnswered."""

    part: ClassVar[str] = "cloud"
    ask_id: str
    order_no: str


class TakeConfig(Effect, frozen=True):
    """Run with the configuration that waits, now that nobody stands at the counter.  Answers ConfigSaid."""

    part: ClassVar[str] = "config"
    digest: str


class Alarm(Effect, frozen=True):
    """Ring `key` when the monotonic clock of boot `boot` reaches `at_ms`; at once under another boot.  Answers Rang."""

    part: ClassVar[str] = "clock"
    key: tuple[str, ...]
    boot: str
    at_ms: int


# What stands on paper: a printer turns these into its own bytes, and nothing else reaches it.  Each is written with what is not as
# usual alone: a receipt is half of what a sale writes.

class Text(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """A line of text.  `align` is `l`, `c` or `r`; `size` 1 or 2 (double width and height)."""

    text: str
    align: str = "l"
    size: int = 1
    bold: bool = False


class Pair(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """Left text and right text on one line; a left side too long is wrapped before the right side."""

    left: str
    right: str
    size: int = 1
    bold: bool = False


class Ruler(msgspec.Struct, frozen=True, tag=True):
    """A dashed line over the whole width."""


class QrCode(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    text: str
    module: int = 6                      # dots a module


class Barcode(msgspec.Struct, frozen=True, tag=True):
    """Code 128 of ASCII text."""

    text: str


class Cut(msgspec.Struct, frozen=True, tag=True):
    """Feed and cut."""


PaperPart = Text | Pair | Ruler | QrCode | Barcode | Cut
