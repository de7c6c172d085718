"""Words that every floor shares: time stamps, goods, the terms of this shop.  Knows no device, no channel and no file."""

from __future__ import annotations

import msgspec


class Stamp(msgspec.Struct, frozen=True, array_like=True):
    """When something happened, as three clocks said it.

    `boot` names the boot, `mono_ms` counts from it, `wall` is RFC 3339 with offset and `clk` its quality:
    `unset restored ntp rtc anchored`.
    """

    boot: str
    mono_ms: int
    wall: str
    clk: str = "unset"


class Item(msgspec.Struct, frozen=True):
    """One row of the price list.  `unit` is `piece` or `kg`; `price_fen` is for one unit."""

    gtin: str
    name_zh: str
    name_en: str
    price_fen: int
    unit: str = "piece"


class Found(msgspec.Struct, frozen=True):
    """What the edge found behind a scanned symbol: the goods and, for in-store codes, the weight or amount printed in it."""

    item: Item
    qty_milli: int = 1000
    amount_fen: int | None = None       # fixed by a price code; None: price times quantity
    list_version: str = ""              # of the price list that says so


class Account(msgspec.Struct, frozen=True):
    """Public half of a merchant account at a channel.  Keys are the driver's business and are found by `account`.

    `fields` are the request fields that the account fixes, as sorted pairs, e.g. (("appid", ...), ("mchid", ...),
    ("notify_url", ...)).
    """

    channel: str
    account: str
    fields: tuple[tuple[str, str], ...] = ()


class Rules(msgspec.Struct, frozen=True):
    """Timing and undo rules of one channel: data, so that a fleet can push them.  Each pace is (until_ms, every_ms) pairs."""

    pace_ms: tuple[tuple[int, int], ...] = ((60_000, 2_000), (300_000, 5_000))
    give_up_ms: int = 300_000
    place_ms: int = 8_000                # without a QR by then another route is tried, where there is one
    undo_after_ms: int = 0               # after the order was made: an undo that comes sooner is refused
    undo_every_ms: int = 2_000
    undo_moves_money: bool = False       # the undo of a paid order gives its money back by itself
    dead_after_ms: int = 7_500_000       # WeChat's QR lives two hours whatever we asked for
    refund_query_ms: int = 60_000
    refund_parts_max: int = 50
    refund_days_max: int = 365


# A payer's code is charged at once and decided within a minute, and its undo is a reversal.
CODE_RULES = Rules(pace_ms=((60_000, 5_000),), give_up_ms=45_000, undo_after_ms=15_000, undo_moves_money=True)

# A sale at a card terminal lasts as long as its holder takes; the terminal voids what was approved.
CARD_RULES = Rules(pace_ms=((300_000, 2_000),), give_up_ms=180_000, undo_moves_money=True, dead_after_ms=3_600_000,
                   refund_query_ms=5_000, refund_parts_max=1, refund_days_max=180)
WAY_RULES = {"qr": Rules(), "code": CODE_RULES, "card": CARD_RULES}


class CodeRule(msgspec.Struct, frozen=True):
    """Payment codes of one wallet: digits alone, `low` to `high` the first two, `shortest` to `longest` in all."""

    wallet: str
    low: str
    high: str
    shortest: int
    longest: int


CODES = (CodeRule("wechat", "10", "15", 18, 18), CodeRule("alipay", "25", "30", 16, 24),
         CodeRule("unionpay", "62", "62", 19, 19), CodeRule("ecny", "01", "01", 19, 19))


class Supervisor(msgspec.Struct, frozen=True):
    """Who may approve.  `badge` the SHA-256 of the badge's code, hex; `pin` as `approval.pin_hash` makes it."""

    name: str
    badge: str
    pin: str


class Cards(msgspec.Struct, frozen=True):
    """What printed command cards are proven by: the store's card key, its name on cards, and numbers that are obeyed no more."""

    key: str = ""
    store: str = ""
    revoked: tuple[str, ...] = ()

    def __repr__(self) -> str:           # who has the key can print cards
        return f"Cards({self.store!r}, {len(self.revoked)} revoked)"


class Terms(msgspec.Struct, frozen=True):
    """What the shop has settled: everything the core needs of the configuration, and nothing else of it."""

    box: str = "box-1"
    box_no: str = "000001"
    shop_zh: str = "便利店"
    shop_en: str = "Corner Shop"
    cashier: str = "01"
    lang: str = "zh"
    route: tuple[str, ...] = ("wechat",)
    gateway_wallets: tuple[str, ...] = ()        # those the gateway takes; empty: every one
    gateway_qr: str = ""                 # the wallet whose QR it shows when none is named; empty: its QRs are for every wallet
    accounts: tuple[Account, ...] = ()
    rules: tuple[tuple[str, Rules], ...] = ()    # by channel, or channel and way: "wechat", "wechat.code"
    rules_version: int = 0
    codes: tuple[CodeRule, ...] = CODES
    instalment_code: str = ""            # ends the symbol of the shop's own instalment cards
    approve_refund_fen: int = 0          # refunds above it want a supervisor; 0: none does
    approve_drawer: bool = False         # so does DRAWER
    supervisors: tuple[Supervisor, ...] = ()
    cards: Cards = Cards()
    cutoff_hour: int = 4
    cash_round_fen: int = 1              # cash totals are rounded down to a multiple of this
    amount_fen_max: int = 5_000_000
    training: bool = False
    receipt_url: str = ""                # of the receipt on the display when paper is dead; {no} and {fen} are filled in

    def account_of(self, channel: str) -> Account | None:
        """The account used at `channel`, or None when the shop has none there."""
        return next((a for a in self.accounts if a.channel == channel), None)

    def gateway_takes(self, wallet: str) -> bool:
        """Whether the shop's gateway, where it has one, takes `wallet`."""
        return not self.gateway_wallets or wallet in self.gateway_wallets

    def rules_of(self, channel: str, way: str = "qr") -> Rules:
        """The rules of `channel` for orders of this way; the defaults where nothing was settled."""
        name = channel if way == "qr" else f"{channel}.{way}"
        return next((rules for known, rules in self.rules if known == name), WAY_RULES[way])
