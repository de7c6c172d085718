"""A new journal id: when the cloud has other records than this box, or when rows may be lost.  Decides from words, knows no file.

The books go on, with every order, parked payment and refund in them; the chain begins at record 1 under a new id, and that
record, a `journal`, names the old chain's head.  Order numbers get new letters and skip 1,000, so that a twin of this box, or this
box before its loss, can have made none of them.  Wallets stop where rows may be lost and the cloud has not spoken yet.
"""

from __future__ import annotations

from device.txn import record
from device.txn.books import Books
from device.txn.desk import Desk, Verdict
from device.txn.facts import Fact, JournalRenewed, NumbersSkipped, WalletsBack, WalletsStopped
from device.txn.inputs import CloudStood, Started
from device.txn.minting import EMPTY_DIGEST, salt_of
from device.txn.words import say
from device.types import Stamp

SKIP = 1_000              # order numbers passed over after any repair: none of them can have left unseen
OTHERS = ("fork", "rollback")


def at_start(b: Books, e: Started) -> list[Fact]:
    """What recovery found before this boot, as facts; nothing on an ordinary one."""
    facts: list[Fact] = []
    if e.mended:
        facts.append(NumbersSkipped(max(b.orders_made, e.orders_seen) + SKIP, max(b.boots, e.boots_seen)))
    if e.renew and b.chain.jid:
        facts.append(_renewed(b, e.seed, e.renew))
    elif e.renew and e.after:
        facts.append(record.due("journal", after={"jid": "", "seq": 0, "head": e.after}, cause=e.renew))
    if e.wallets_stop and not b.wallets_stopped:
        facts.append(WalletsStopped(e.wallets_stop))
    return facts


def on_cloud_stood(b: Books, d: Desk, e: CloudStood, at: Stamp) -> Verdict:
    """Where the cloud stands with one of our journals.  Another history than ours wants a new id, between two customers."""
    facts: list[Fact] = [WalletsBack()] if b.wallets_stopped else []
    ours = {b.chain.jid, *(old.jid for old in b.chain.older)}
    if facts and e.jid not in ours and e.upto:        # nothing here knows that journal any more: what the cloud has is named
        facts.append(record.due("journal", cloud={"jid": e.jid, "seq": e.upto, "head": e.head}, cause="lost"))
    words = say("wallets_back") if facts else None
    if e.verdict in OTHERS and e.jid == b.chain.jid and b.chain.seq:
        return Verdict(facts, say("journal_renews"), "wait", desk={"renew": (e.verdict, e.seed, e.why)})
    return Verdict(facts, words, "good" if facts else "plain")


def renewed(b: Books, d: Desk, at: Stamp) -> Verdict:
    """The moment has come: nobody is served, and no record waits for its signature."""
    cause, seed, _ = d.renew
    if not cause or b.due:
        return Verdict()
    return Verdict([NumbersSkipped(b.orders_made + SKIP, b.boots), _renewed(b, seed, cause)], say("journal_renewed"), "wait",
                   desk={"renew": ("", "", "")})


def _renewed(b: Books, seed: str, cause: str) -> JournalRenewed:
    after = {"jid": b.chain.jid, "seq": b.chain.seq, "head": b.chain.prev if b.chain.seq else EMPTY_DIGEST}
    return JournalRenewed(seed, salt_of(seed), EMPTY_DIGEST, cause, record.due("journal", after=after, cause=cause).body)
