"""How a wallet payment begins: which channel, by which way, for how much; and how it goes on by another route.

One live attempt a sale, whatever is pressed or scanned.  A payer's code is a bearer token: it goes to one attempt, once,
from memory, and stands in no fact and in no sentence.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac

from device.txn.books import Basket, Books, Order, Tender
from device.txn.desk import Code, Desk, Verdict, refuse
from device.txn.effects import Intent, RefundIntent
from device.txn.facts import Fact, OrderIntended, RefundIntended
from device.txn.minting import mint
from device.txn.routing import Outcome, choose, noted
from device.txn.words import WALLETS, say, yuan
from device.types import Account, CodeRule, Stamp, Terms

CHANNEL_KEYS = {1: "wechat", 2: "alipay", 3: "unionpay", 4: "gateway", 5: "card"}
OWN = ("wechat", "alipay", "unionpay")       # wallets with a channel of their own
PART_FEN_MIN = 10            # what is typed before PAY is a channel below this, and an amount from here on
AGGREGATOR = "gateway"       # takes every wallet, or those that the shop's terms name
CARD = "card"                # the terminal on the counter: it shows no QR, so PAY alone never chooses it
INSTALMENTS = "TBC-FQ-"      # a card at the counter: TBC-FQ-12-PAYER, periods and who bears the fee; TBC-FQ-12-SHOP-code
PERIODS = ("3", "6", "12")
SPENT_MAX = 16
UNHEARD = frozenset({"gone", "slow", "lying"})


def pay_key(b: Books, d: Desk, n: int | None, at: Stamp) -> Verdict:
    """`PAY` the routed wallet, `1 PAY` to `5 PAY` a named one, `n PAY` a part of n fen by the routed wallet."""
    if n is not None and n < PART_FEN_MIN and n not in CHANNEL_KEYS:
        return refuse("no_channel")
    part_fen = n if n is not None and n >= PART_FEN_MIN else 0
    if n is None or part_fen:
        routes = _usable(d, tuple(name for name in d.terms.route if name != CARD))
    elif n <= 3:
        return _begin_with(b, d, CHANNEL_KEYS[n], "qr", 0, at)
    else:
        routes = _usable(d, (CHANNEL_KEYS[n],))
    return _begin(b, d, routes, "card" if n == 5 else "qr", part_fen, at)


def code_key(b: Books, d: Desk, n: int | None, at: Stamp) -> Verdict:
    """`CODE`, or `n CODE` for a part of n fen: the customer's code is scanned next."""
    fault = _unpayable(b, d, n or 0)
    if fault is not None:
        return fault
    if n == 0:
        return refuse("nothing_due")
    return Verdict(words=say("code_scan", amount=yuan(n or b.basket.due_fen)), tone="wait",
                   desk={"mode": "code", "part_fen": n or 0})


def code_scanned(b: Books, d: Desk, symbol: str, at: Stamp) -> Verdict:
    """A payer's code while it is waited for: charged at once, or refused without being repeated."""
    code = symbol.strip()
    wallet = wallet_of(code, d.terms.codes)
    if not wallet:
        return refuse("code_bad")
    spent = hashlib.sha256(code.encode()).hexdigest()
    if spent in d.spent:
        return refuse("code_spent")
    verdict = _begin_with(b, d, wallet, "code", d.part_fen, at)
    if verdict.refused:
        return verdict
    verdict.desk |= {"mode": "", "typed": "", "part_fen": 0, "spent": (*d.spent[-SPENT_MAX + 1:], spent),
                     "code": Code(verdict.facts[0].intent.order_no, code)}
    verdict.words, verdict.tone = say("charging"), "wait"
    return verdict


def wallet_of(symbol: str, rules: tuple[CodeRule, ...]) -> str:
    """Whose payment code `symbol` is by its first digits and length, "" for none: never a proof, only a direction."""
    if not (symbol.isascii() and symbol.isdigit()):
        return ""
    return next((r.wallet for r in rules if r.low <= symbol[:2] <= r.high and r.shortest <= len(symbol) <= r.longest), "")


def wallet_meant(intent: Intent) -> str:
    """The one wallet that can pay this QR, "" when any can."""
    return intent.channel if intent.channel in OWN else dict(intent.extras).get("wallet", "")


def instalments_scanned(b: Books, d: Desk, symbol: str) -> Verdict:
    """A card for the next wallet payment: in how many months the payer pays, and who bears the fee.

    One that makes the shop bear it ends in the shop's own code: any phone can show a barcode.
    """
    periods, _, rest = symbol[len(INSTALMENTS):].partition("-")
    payer, _, code = rest.partition("-")
    if periods not in PERIODS or payer not in ("SHOP", "PAYER") or (payer == "PAYER" and code):
        return refuse("instalments_bad")
    own = d.terms.instalment_code
    if payer == "SHOP" and not (own and hmac.compare_digest(code.encode(), own.encode())):
        return refuse("instalments_strange")
    return Verdict(words=say("instalments_set", n=periods), tone="wait",
                   desk={"extras": (("fee_payer", payer.lower()), ("instalments", periods))})


def other_route(d: Desk, order: Order) -> str:
    """Another channel for the customer of `order`, "" when there is none or it was tried before."""
    if order.intent.way != "qr" or order.reroutes >= len(order.routes) - 1:
        return ""
    return next((name for name in _usable(d, order.routes) if name != order.intent.channel), "")


def rerouted(b: Books, d: Desk, order: Order, closed: list[Fact], at: Stamp) -> Verdict:
    """The attempt is dead: the same payment by another route, in the same row."""
    channel = other_route(d, order)
    if not channel:
        return Verdict(closed, say("cancelled"))
    extras = tuple(pair for pair in order.intent.extras if pair[0] != "wallet")
    made = intended(b, d.terms, channel, "qr", order.intent.amount_fen, at, extras, order.routes,
                    order.reroutes + 1, wallet_meant(order.intent))
    return Verdict([*closed, made], ("", ""))


def refund_of(tender: Tender, refund_no: str, amount_fen: int, reason: str, at: Stamp,
              today: Account | None = None) -> RefundIntent:
    """Money of a paid order on its way back, to the account it came in by; `today`'s where an older row names none."""
    account = tender.account or today
    assert account is not None
    return RefundIntent(refund_no, tender.order_no, tender.method, account, amount_fen, tender.amount_fen, reason, at.wall,
                        tender.channel_no, tender.way, tender.made_at)


def parts_back(b: Books, basket: Basket, cause: str, at: Stamp) -> list[Fact]:
    """Wallet parts of a basket that will not be sold after all go back."""
    paid = [tender for tender in basket.tenders if tender.order_no]
    return [RefundIntended(refund_of(tender, mint(b, i), tender.amount_fen, f"{cause} payment", at), cause)
            for i, tender in enumerate(paid)]


def outcome_of(d: Desk, order: Order, ok: bool, at: Stamp) -> dict:
    """The desk after one more outcome of an attempt."""
    ms = max(0, at.mono_ms - order.since_ms)
    return {"outcomes": noted(d.outcomes, Outcome(order.intent.channel, ok, ms, at.mono_ms))}


def _begin_with(b: Books, d: Desk, wallet: str, way: str, part_fen: int, at: Stamp) -> Verdict:
    """A payment by one wallet: at its own channel, else at the gateway where that takes it.  Known at once, and said at once."""
    names = tuple(name for name in (wallet, *((AGGREGATOR,) if d.terms.gateway_takes(wallet) else ()))
                  if d.terms.account_of(name) is not None)
    if not names and _unpayable(b, d, part_fen) is None:
        zh, en = WALLETS[wallet]
        return refuse("wallet_not_here", zh=zh, en=en)
    return _begin(b, d, _usable(d, names), way, part_fen, at, wallet)


def _begin(b: Books, d: Desk, routes: tuple[str, ...], way: str, part_fen: int, at: Stamp, wallet: str = "") -> Verdict:
    fault = _unpayable(b, d, part_fen)
    if fault is not None:
        return fault
    if not routes:
        return refuse("no_channel" if way != "code" else "code_not_here")   # there it could neither be placed nor closed
    if d.extras:
        routes = tuple(name for name in routes if name in ("alipay", AGGREGATOR))
        if not routes:
            return refuse("instalments_where")
    channel = choose(_answering(b, d, routes), d.outcomes, at.mono_ms)
    made = intended(b, d.terms, channel, way, part_fen or b.basket.due_fen, at, d.extras, routes, wallet=wallet)
    return Verdict([made], ("", ""), desk={"qty": 0, "extras": ()})


def _unpayable(b: Books, d: Desk, part_fen: int) -> Verdict | None:
    if d.terms.training:                              # no order of a training box may ever reach a channel
        return refuse("training_cash")
    if b.wallets_stopped:
        return refuse("wallets_stopped")
    if not b.basket.lines:
        return refuse("empty")
    if b.basket.due_fen <= 0:
        return refuse("nothing_due")
    return refuse("part_over", due=yuan(b.basket.due_fen)) if part_fen > b.basket.due_fen else None


def _usable(d: Desk, names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `names` that the shop has an account at and whose driver stands."""
    health = dict(d.health)
    return tuple(name for name in names if d.terms.account_of(name) is not None and health.get(f"channel:{name}") != "error")


def _answering(b: Books, d: Desk, routes: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `routes` that answer, or all: a customer's try at one that does not would wait for its close as well.

    One that nobody asks about anything may have come back unheard, and is tried.
    """
    asked, health = {order.intent.channel for order in b.orders.values()}, dict(d.health)
    return tuple(name for name in routes if name not in asked or health.get(f"channel:{name}") not in UNHEARD) or routes


def intended(b: Books, terms: Terms, channel: str, way: str, amount_fen: int, at: Stamp,
             extras: tuple[tuple[str, str], ...] = (), routes: tuple[str, ...] = (), reroutes: int = 0,
             wallet: str = "") -> OrderIntended:
    """The intent of one attempt, every field of its request and every rule of its life frozen.

    A gateway whose QRs are for one wallet each is told which: the one named, or the shop's usual one.
    """
    if channel == AGGREGATOR and way == "qr" and terms.gateway_qr:
        extras = tuple(sorted((*extras, ("wallet", wallet or terms.gateway_qr))))
    rules, account = terms.rules_of(channel, way), terms.account_of(channel)
    assert account is not None
    wall = datetime.datetime.fromisoformat(at.wall)
    expires = (wall + datetime.timedelta(milliseconds=rules.give_up_ms + 60_000)).replace(microsecond=0).isoformat()
    intent = Intent(mint(b), channel, account, amount_fen, terms.shop_zh, at.wall, expires, way, extras)
    return OrderIntended(intent, rules.give_up_ms, rules.dead_after_ms, rules.undo_moves_money, rules.undo_after_ms,
                         routes, reroutes)
