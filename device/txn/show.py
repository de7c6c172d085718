"""What a person sees: the customer's screen and the words of `/state`.  Books and desk in, plain values out."""

from __future__ import annotations

from device.txn import papers
from device.txn.books import Books, Order, Phase
from device.txn.books import Line as Goods
from device.txn.check_words import check_words
from device.txn.desk import Desk
from device.txn.paying import UNHEARD, wallet_meant
from device.txn.receipt import quantity
from device.txn.screen import Line, Screen
from device.txn.words import HEALTH, PROOFS, WALLETS, disputed_words, say, yuan
from device.types import Terms

LINES_SHOWN = 8
ALL_WALLETS = ("wechat", "alipay", "unionpay", "ecny")
REFUND_MODES = ("refund", "pick", "badge", "pin")
PHASES = {Phase.PLACING: "PLACING", Phase.AWAITING: "AWAITING", Phase.CANCELLING: "CANCELLING", Phase.ASKING: "CANCELLING",
          Phase.UNDECIDED: "CANCELLING"}


def phase(books: Books, desk: Desk) -> str:
    """`IDLE BASKET PLACING AWAITING CANCELLING PAID REFUNDING`."""
    order = books.orders.get(books.basket.order_no)
    if order is not None:
        return PHASES[order.phase]
    if books.basket.lines:
        return "BASKET"
    if _refunds(desk):
        return "REFUNDING"
    if books.shown is not None:
        return {"paid": "PAID", "refunding": "REFUNDING", "refunded": "IDLE"}[books.shown.what]
    return "IDLE"


def _refunds(desk: Desk) -> bool:
    """Whether the question is one about a refund; a badge may be asked for to open the drawer as well."""
    return desk.mode in REFUND_MODES and (desk.mode == "refund" or desk.pick is not None)


def render(books: Books, desk: Desk) -> Screen:
    """The frame that is true now.  A QR stands on it only while its order is the live one and open."""
    terms, lang = desk.terms, 0 if desk.terms.lang == "zh" else 1
    basket, order, now = books.basket, books.orders.get(books.basket.order_no), phase(books, desk)
    notice, tone = desk.words[lang], desk.tone
    total = basket.total_fen
    screen = {"phase": now, "lines_total": len(basket.lines), "total_fen": total, "footer": footer(books, desk),
              "typed": typed(desk), "lang": terms.lang, "training": terms.training,
              "notice": notice, "tone": tone, "cash_only": cash_only(books, desk),
              "lines": tuple(_line(x, lang) for x in basket.lines[-LINES_SHOWN:])}
    shop = (terms.shop_zh, terms.shop_en)[lang]
    if order is not None:
        name = wallet_meant(order.intent) or order.intent.channel
        wallet = WALLETS.get(name, (name,) * 2)
        live = order.phase is Phase.AWAITING and not order.disputed_fen and not order.held_fen
        title = _paying(order, wallet[lang])[lang]
        screen |= {"title": title, "big": yuan(order.intent.amount_fen), "order_no": order.intent.order_no,
                   "qr": order.qr if live else "", "wallets": _wallets(name, terms, lang) if live else (),
                   "words": check_words(order.intent.order_no) if live and order.qr else (),
                   "deadline": (books.boot, order.due_ms) if live or order.phase is Phase.ASKING else None}
        if order.disputed_fen and order.phase is not Phase.ASKING:
            screen |= {"title": disputed_words(order.intent.amount_fen, order.disputed_fen)[lang], "tone": "bad"}
        elif order.held_fen and order.phase is not Phase.ASKING:
            screen |= {"title": say("money_held")[lang], "tone": "bad"}
        if order.phase is Phase.ASKING:
            screen["tone"] = "wait"
    elif now == "REFUNDING" and _refunds(desk):
        screen["title"] = say("refund_scan" if desk.mode == "refund" else "refund_title")[lang]
    elif now in ("BASKET", "PAID") or books.shown is not None:
        if basket.lines:
            screen |= {"title": shop, "big": yuan(basket.due_fen)}
        else:
            shown = books.shown
            words = {"paid": say("paid"), "refunding": say("refunding", amount=""), "refunded": say("refunded", amount="")}
            screen |= {"title": words[shown.what][lang].strip(), "big": yuan(shown.amount_fen),
                       "tone": "wait" if shown.what == "refunding" else "good", "order_no": shown.order_no,
                       "total_fen": shown.amount_fen, "change_fen": shown.change_fen}
            screen["receipt_qr"] = papers.address(books, desk)
            if shown.change_fen and not notice:
                screen["notice"] = say("change", change=yuan(shown.change_fen))[lang]
    else:
        screen["title"] = shop
        if not notice:
            screen["notice"] = say("cash_now" if screen["cash_only"] else "welcome")[lang]
            screen["tone"] = "plain"
    if screen["notice"] == screen["title"]:
        screen["notice"] = ""                          # said once, large
    return Screen(**screen)


def farewell(terms: Terms) -> Screen:
    """What stays on the glass while no daemon lives."""
    lang = 0 if terms.lang == "zh" else 1
    return Screen("IDLE", say("starting")[lang], tone="wait", lang=terms.lang, training=terms.training)


def cash_only(books: Books, desk: Desk) -> bool:
    """True while no wallet is taken: the journal waits for the cloud, or not one of the shop's channels can be used.

    A channel that did not answer counts only while somebody asks it: one that nobody asks may have come back unheard.
    """
    asked, health = {order.intent.channel for order in books.orders.values()}, dict(desk.health)

    def dead(name: str) -> bool:
        word = health.get(f"channel:{name}", "ok")
        return word == "error" or (word in UNHEARD and name in asked)
    return bool(books.wallets_stopped) or (bool(desk.terms.route) and all(map(dead, desk.terms.route)))


def _wallets(name: str, terms: Terms, lang: int) -> tuple[str, ...]:
    """Whose apps read the QR: one wallet in both languages, or those that the gateway takes."""
    if name == "gateway":
        return tuple(WALLETS[wallet][lang] for wallet in terms.gateway_wallets or ALL_WALLETS)
    return WALLETS.get(name, (name,) * 2)


def _line(line: Goods, lang: int) -> Line:
    first, second = (line.name_en, line.name_zh) if lang and line.name_en else (line.name_zh, line.name_en)
    return Line(first, quantity(line.qty_milli, line.unit), line.amount_fen, "" if second == first else second)


def typed(desk: Desk) -> str:
    """What counts for the next key or payment: digits, quantity, instalments.

    Digits of a PIN, also of one typed before its badge was scanned, are nobody's to read.
    """
    digits = "*" * len(desk.typed) if desk.mode in ("badge", "pin") else desk.typed
    periods = dict(desk.extras).get("instalments")
    plan = (f" 分期{periods}", f" {periods} months")[desk.terms.lang != "zh"] if periods else ""
    return digits + (f" x{desk.qty}" if desk.qty else "") + plan


def _paying(order: Order, wallet: str) -> tuple[str, str]:
    """What the customer should do, or wait for."""
    way = order.intent.way
    match order.phase:
        case Phase.PLACING:
            return say("charging" if way == "code" else "present_card" if way == "card" else "placing")
        case Phase.AWAITING:
            return say("payer_asked" if way == "code" else "present_card" if way == "card" else "scan_to_pay",
                       **({} if way != "qr" else {"wallet": wallet}))
        case Phase.ASKING:
            return say("asking")
    return say("paid_undoing" if order.undo_moves and order.channel_no else "cancelling")


def footer(books: Books, desk: Desk) -> tuple[str, ...]:
    """What is not well, and what waits, in words."""
    lang = 0 if desk.terms.lang == "zh" else 1
    parts = list(desk.health)
    if books.wallets_stopped:
        parts.append(("journal", "cash_only"))
    if books.broken:
        parts.append(("signer", "broken"))
    if not desk.up:
        parts.append(("link", "down"))
    elif not desk.collector:
        parts.append(("link", "unheard"))
    out = []
    for part, word in parts:
        if part.startswith("channel:") and (part, word) not in HEALTH:
            wallet = WALLETS.get(part[8:], (part[8:],) * 2)[lang]
            out.append((f"{wallet}支付暂不可用，可收现金", f"{wallet} does not answer: cash works")[lang])
        else:
            kind, _, lane = part.partition(":") if (part, word) not in HEALTH else (part, "", "")    # of several scanners: its name
            told = HEALTH.get((kind, word), (f"{kind} {word}",) * 2)[lang]
            out.append(f"{lane} {told}" if lane else told)
    waiting = sum(1 for p in books.papers.values() if p.state in ("due", "unsure", "late"))
    if waiting > 1 or any(p.state == "late" for p in books.papers.values()):       # one that is due is on its way
        out.append((f"{waiting} 张单据待打印", f"Papers that wait: {waiting}")[lang])
    if books.shelved:
        out.append((f"更早 {books.shelved} 张未打印，按 REPRINT 补打",
                    f"{books.shelved} older not printed: REPRINT finds them")[lang])
    parked = sum(1 for o in books.orders.values() if o.park or o.disputed_fen)
    if parked:
        out.append((f"{parked} 笔付款未明", f"{parked} payments undecided")[lang])
    return tuple(out)


def state(books: Books, desk: Desk, now_ms: int) -> dict:
    """The `/state` object, except what only the link and the store know."""
    health = {"printer": "ok", "scanner": "ok", "keypad": "ok", "display": "ok"} | dict(desk.health)
    if books.wallets_stopped:
        health["journal"] = "cash_only"
    health["signer"] = "broken" if books.broken else "ok"
    health["link"] = "ok" if desk.up else "down"
    health["collector"] = "ok" if desk.collector else "away"
    return {
        "phase": phase(books, desk),
        "lines": [{"gtin": x.gtin, "name_zh": x.name_zh, "name_en": x.name_en, "qty_milli": x.qty_milli,
                   "price_fen": x.price_fen, "amount_fen": x.amount_fen, "unit": x.unit} for x in books.basket.lines],
        "total_fen": books.basket.total_fen,
        "due_fen": books.basket.due_fen,
        "tenders": [{"method": t.method, "amount_fen": t.amount_fen} for t in books.basket.tenders],
        "orders": [_order(o, now_ms) for o in books.orders.values()],
        "parked": [_order(o, now_ms) | {"slip": o.slip, "policy": o.park} for o in books.orders.values() if o.park],
        "held": [{"slot": slot, "lines": len(x.lines), "total_fen": x.total_fen} for slot, x in sorted(books.held.items())],
        "refunds": [{"refund_no": no, "order_no": r.intent.order_no, "amount_fen": r.intent.amount_fen, "cause": r.cause,
                     "accepted": r.accepted} for no, r in books.refunds.items()],
        "papers": [{"job": p.job, "kind": p.kind, "state": p.state, "since": p.at, "age_s": max(0, now_ms - p.since_ms) // 1000}
                   for p in books.papers.values() if p.state not in ("printed", "copied")],
        "paper_last": _paper_last(books, desk),
        "papers_shelved": books.shelved,
        "health": health,
        "notice": " / ".join(w for w in dict.fromkeys(desk.words) if w),
        "training": desk.terms.training,
    }


def _paper_last(books: Books, desk: Desk) -> dict | None:
    """The newest paper that left, and in words how well it is known to have come out."""
    paper = next((p for p in reversed(books.papers.values()) if p.proof >= 0), None)
    if paper is None:
        return None
    return {"job": paper.job, "kind": paper.kind, "copy": paper.copy, "proof": paper.proof,
            "truth": PROOFS[paper.proof][desk.terms.lang != "zh"]}


def _order(order: Order, now_ms: int) -> dict:
    """`age_s` since its intent; `shelf_s` until nobody can pay it any more: then the channel's bill may decide, too."""
    return {"order_no": order.intent.order_no, "channel": order.intent.channel, "way": order.intent.way,
            "amount_fen": order.intent.amount_fen,
            "phase": str(order.phase), "qr": order.qr, "words": check_words(order.intent.order_no) if order.qr else (),
            "disputed_fen": order.disputed_fen,
            "held_fen": order.held_fen,
            "age_s": max(0, now_ms - order.since_ms) // 1000,
            "shelf_s": max(0, order.since_ms + order.dead_after_ms - now_ms) // 1000}
