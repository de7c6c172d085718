"""What follows from the signer's word: a record signed, a signer that broke, a signer that is back.

A broken signer stops no sale.  What falls due meanwhile waits; when it signs again the chain first says so, in one `signer_gap`,
and then takes each record that waited, in order, marked `late`.  *Broken* is what the driver says: an error, or no answer in its
time.  A signature that only takes long is none of it.

Another record key is made, introduced by a `key` record under the old one, and from then on it signs.  Only when that record is on
the card is the old key destroyed: at every moment one of the two is there, and the journal says which.
"""

from __future__ import annotations

import msgspec

from device.txn import record
from device.txn.books import Books
from device.txn.desk import Desk, Verdict
from device.txn.facts import Fact, KeyDropped, KeyMade, KeyWished, RecordSigned, SignerBroke, SignerReturned
from device.txn.inputs import DeviceSaid, KeyGone, KeyReady, Signed
from device.txn.minting import digest
from device.types import Stamp

WHY_MAX = 200             # characters of a reason that a record carries


def on_signed(b: Books, d: Desk, e: Signed, at: Stamp) -> Verdict:
    """A token for the record that is due.  One that comes after its signer was given up is dropped: the record is late by then."""
    if e.seq != b.chain.seq + 1 or not b.due or b.broken:
        return Verdict()
    return Verdict([RecordSigned(e.seq, digest(e.token), e.token)])


def on_signer_said(b: Books, d: Desk, e: DeviceSaid, at: Stamp) -> Verdict:
    """It failed over a record that is due, or signs again."""
    if e.word == "ok":
        return Verdict([SignerReturned(_gap(b, at))] if b.broken else [])
    return Verdict([SignerBroke((e.why or e.word)[:WHY_MAX])] if b.due and not b.broken else [])


def on_key_ready(b: Books, d: Desk, e: KeyReady, at: Stamp) -> Verdict:
    """The new key is introduced by a record under the old one; what falls due afterwards is signed under the new one."""
    if not b.key_wished or e.kid == b.chain.kid:
        return Verdict()
    if e.why:
        return Verdict(desk=d.of_part("record_key", "stuck"))
    return Verdict([KeyMade(e.kid), record.due("key", kid=e.kid, jwk=msgspec.Raw(e.jwk.encode()))],
                   desk=d.of_part("record_key", "ok"))


def on_key_gone(b: Books, d: Desk, e: KeyGone, at: Stamp) -> Verdict:
    if e.why:
        return Verdict(desk=d.of_part("record_key", "stuck"))
    return Verdict([KeyDropped(e.kid)] if e.kid == b.key_old else [], desk=d.of_part("record_key", "ok"))


def wish_key(b: Books) -> list[Fact]:
    """Another key is wanted; nothing while one is on its way."""
    return [] if b.key_wished or b.key_next or b.key_old else [KeyWished()]


def _gap(b: Books, at: Stamp) -> str:
    """From the first record that could not be signed until now.  A gap that was never signed goes up in this one."""
    waiting = b.due[1:] if b.due[0].kind == "signer_gap" else b.due
    return record.due("signer_gap", count=len(waiting), since=waiting[0].at.wall, until=at.wall, cause=b.broken).body
