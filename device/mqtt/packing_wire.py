"""Records packed for a narrow line: what both ends know already is left out, and put back to the last byte.

Knows how a token is spelled; refuses to know keys, links between batches and headers.  A packed batch is `count` signatures of
64 bytes, then one raw deflate stream primed with `DICTIONARY`: a line `#kid` wherever the record key changes, first of all at
the start, and one line for each payload.  Two things are left out of a payload: the header's base64url around it, and `prev` of
every record but the first, which is the digest of the record before it.  What is packed is put together again from these alone,
so a batch whose inner links do not hold, or whose tokens are spelled in another way, cannot be packed: it goes as it stands.
"""

from __future__ import annotations

import binascii
import re
import zlib
from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

from device.store_forward.token import SIGNATURE_BYTES, b64, header

# Version 1 of what the stream may refer to before it begins; the likeliest stands last.  Never changed: another text is another
# version, under another name of the encoding, which a collector must have said that it reads.
DICTIONARY = (
    '"kind":"void","kind":"drawer","kind":"stock","kind":"key","kind":"config","kind":"command","kind":"clock","kind":"lease",'
    '"kind":"signer_gap","body":{"count":0,"since":"","until":"","cause":"","late":true,"after":"","kind":"payment_alert",'
    '"kind":"shift_open","kind":"x_report","kind":"z_report","body":{"no":1,"day":"2026-","sales":0,"sales_fen":0,"refunds":0,'
    '"refunds_fen":0,"voids":0,"voids_fen":0,"drawer_openings":0,"methods":[{"method":"cash","amount_fen":0}],"grand_fen":0,'
    '"channels":[{"channel":"wechat","way":"qr","hour":12,"attempts":1,"paid":1,"ms":800,"late":0,"failed":{}}]}}\n'
    '"kind":"boot","sum":{"sales_fen":0,"refunds_fen":0,"count":0},"body":{"boot":"","software":"0.1.0","rules_version":1}}\n'
    '"kind":"refund","body":{"order_no":"","refund_no":"","amount_fen":100,"method":"wechat","cause":"customer",'
    '"approved_by":"","paid_no":"","lease":""}}\n'
    '"wallet":"payer":"****"way":"code","instalments":3,"fee_payer":"payer""unionpay""ecny""card""rounding""gateway"'
    '"clk":"unset","clk":"restored","clk":"rtc","clk":"anchored",'
    '"name":"(听)(瓶)(袋)(盒)牛奶面包矿泉水啤酒方便面饼干巧克力薯片味口可乐茶100g250ml330ml500ml550ml600ml1L","qty_milli":2000,'
    '"price_fen":1200,"amount_fen":2400},{"gtin":"690","gtin":"692","gtin":"693","gtin":"694","gtin":"695","gtin":"697",'
    '{"method":"cash","amount_fen":1000,"order_no":"","channel_no":""}]}}\n'
    '{"method":"alipay","amount_fen":1000,"order_no":"000001","channel_no":"2026","account":"alipay:2088"}]}}\n'
    '{"v":1,"box":"box-1","jid":"","seq":100,"prev":"","at":"2026-09-01T08:00:00.000+08:00","clk":"ntp","boot":"",'
    '"mono_ms":1000000,"kind":"sale","sum":{"sales_fen":100000,"refunds_fen":0,"count":100},"body":{"order_no":"000001",'
    '"amount_fen":1000,"cashier":"01","lines":[{"gtin":"690","name":"","qty_milli":1000,"price_fen":500,"amount_fen":500},'
    '{"gtin":"69","name":"","qty_milli":1000,"price_fen":500,"amount_fen":500}],"tenders":[{"method":"wechat","amount_fen":1000,'
    '"order_no":"000001","channel_no":"4200","account":"wechat:1"}]}}\n').encode()

_FEW_BYTES = 8 * 1024                    # so little is worth the best that deflate can do
_LEVEL_FEW, _LEVEL_MANY = 9, 3
_RAW = -15                               # no header and no sum: signatures prove more
_PREV_HERE, _PREV_GONE = b'"prev":"', b'"prev":""'
_HEADER = re.compile(rb'\{"alg":"ES256","kid":"([A-Za-z0-9_-]{42}[AEIMQUYcgkosw048])","typ":"till\+jws"\}')
_KID = re.compile(rb"#[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")             # 32 bytes, no stray bits


class PackError(ValueError):
    """Bytes that are no packed batch; the sentence says why."""


def packed(tokens: Sequence[str]) -> bytes | None:
    """`tokens` packed, or None when they cannot be put together again to the last byte."""
    signatures, lines, part, link = [], [], b"", b""
    try:
        for token in tokens:
            spelled = token.encode("ascii")
            head, body, signature = spelled.translate(_TO_STANDARD).split(b".")
            if head != part:
                found = _HEADER.fullmatch(_bytes(head))
                if found is None:
                    return None
                lines.append(b"#" + found[1])
                part = head
            line, raw = _bytes(body), _bytes(signature)
            if len(raw) != SIGNATURE_BYTES or b"\n" in line or line[:1] != b"{":
                return None
            if link:
                at = line.find(_PREV_HERE)
                begins, ends = at + len(_PREV_HERE), at + len(_PREV_HERE) + len(link)
                if at < 0 or line[begins:ends] != link or line[ends:ends + 1] != b'"':
                    return None
                line = line[:begins] + line[ends:]
            signatures.append(raw)
            lines.append(line)
            link = _digest(spelled)
    except ValueError:
        return None
    plain = b"\n".join(lines) + b"\n"
    deflater = (_FEW if len(plain) <= _FEW_BYTES else _MANY).copy()
    return b"".join(signatures) + deflater.compress(plain) + deflater.flush()


class Unpacked(NamedTuple):
    """A packed batch put together again: its tokens, the payload inside each, and each one's digest, which the next one names."""

    tokens: list[str]
    payloads: list[bytes]
    digests: list[str]


def unpacked(raw: bytes, count: int, bytes_max: int) -> Unpacked:
    """The `count` records of a packed batch.  PackError, also when they take more than `bytes_max` with a newline each."""
    signed = count * SIGNATURE_BYTES
    plain = _inflated(raw[signed:], bytes_max)
    lines = plain.split(b"\n")
    if lines.pop():
        raise PackError("the last line has no end")
    tokens: list[str] = []
    payloads: list[bytes] = []
    digests: list[str] = []
    head, link, size = b"", b"", 0
    for line in lines:
        if line[:1] == b"#":
            if not _KID.fullmatch(line):
                raise PackError("a line names no record key")
            head = b64(header(line[1:].decode("ascii"))).encode("ascii")
            continue
        if len(tokens) == count or not head:
            raise PackError("there are more payloads than signatures" if head else "no record key is named")
        if link:
            at = line.find(_PREV_GONE)
            if at < 0:
                raise PackError("a payload names its own link")
            cut = at + len(_PREV_HERE)
            line = line[:cut] + link + line[cut:]
        at = len(tokens) * SIGNATURE_BYTES
        spelled = b"%b.%b.%b" % (head, _spelled(line), _spelled(raw[at:at + SIGNATURE_BYTES]))
        size += len(spelled) + 1
        if size > bytes_max:
            raise PackError(f"the records take more than {bytes_max} bytes")
        link = _digest(spelled)
        tokens.append(spelled.decode("ascii"))
        payloads.append(line)
        digests.append(link.decode("ascii"))
    if len(tokens) != count:
        raise PackError(f"there are {len(tokens)} payloads, {count} are promised")
    return Unpacked(tokens, payloads, digests)


def _inflated(raw: bytes, bytes_max: int) -> bytes:
    inflater = zlib.decompressobj(_RAW, zdict=DICTIONARY)
    try:
        plain = inflater.decompress(raw, bytes_max + 1)
    except zlib.error as why:
        raise PackError(f"the records cannot be inflated: {why}") from None
    if len(plain) > bytes_max:
        raise PackError(f"the records inflate to more than {bytes_max} bytes")
    if not inflater.eof or inflater.unused_data:
        raise PackError("the packed records are cut, or something follows them")
    return plain


def _bytes(part: bytes) -> bytes:
    """The bytes of `part`, which `_TO_STANDARD` went over; ValueError for a spelling that would not come back the same."""
    rest = len(part) % 4
    if rest and part[-1] not in _LAST[rest]:
        raise ValueError("stray bits, or no base64 at all")
    return binascii.a2b_base64(part + b"=" * (-rest % 4), strict_mode=True)


def _spelled(data: bytes) -> bytes:
    spelled = binascii.b2a_base64(data, newline=False).rstrip(b"=")
    return spelled.translate(_TO_URL) if b"+" in spelled or b"/" in spelled else spelled    # to look is cheaper


def _digest(spelled: bytes) -> bytes:
    return _spelled(sha256(spelled).digest())


# base64url as base64 and back; what base64url does not know becomes what base64 does not know.
_TO_STANDARD = bytes.maketrans(b"-_+/=", b"+/!!!")
_TO_URL = bytes.maketrans(b"+/", b"-_")
_LAST = {1: b"", 2: b"AQgw", 3: b"AEIMQUYcgkosw048"}       # last characters that carry no stray bits

_FEW = zlib.compressobj(_LEVEL_FEW, zlib.DEFLATED, _RAW, zlib.DEF_MEM_LEVEL, zlib.Z_DEFAULT_STRATEGY, DICTIONARY)
_MANY = zlib.compressobj(_LEVEL_MANY, zlib.DEFLATED, _RAW, zlib.DEF_MEM_LEVEL, zlib.Z_DEFAULT_STRATEGY, DICTIONARY)
