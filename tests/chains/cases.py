"""Every spoilt chain by the error that must be found first, and the whole ones.  One line, one way to be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from device.store_forward.token import EMPTY_DIGEST, Sum, b64, digest, header, parse, seal, signing_input, unb64
from tests.chains import JID2, ORDER, Made, Signer, raw, sale, sound

ONE, TWO, THREE = Signer(1), Signer(2), Signer(3)
KNOWN = [ONE.jwk]                         # what the verifier is told beforehand

Lines = list[str]


def _gap(count: int) -> Made:
    return sound(ONE).add("signer_gap", {"count": count, "cause": "away"})


def _then(*more: str) -> Lines:
    return [*sound(ONE).tokens, *more]


def _payload(**given: Any) -> bytes:
    """The payload of a fifth record after `sound`, as a plain JSON tree with `given` put in."""
    tree = json.loads(unb64(sound(ONE).add().tokens[-1].split(".")[1]))
    return json.dumps(tree | given, separators=(",", ":"), ensure_ascii=False).encode()


def _said(**given: Any) -> Lines:
    return sound(ONE).said(_payload(**given)).tokens


def _replaced(old: bytes, new: bytes, kind: str = "boot", body: Any = None) -> Lines:
    def spoil(payload: bytes) -> bytes:
        assert old in payload, old
        return payload.replace(old, new, 1)
    return sound(ONE).add(kind, body, spoil=spoil).tokens


def _header(text: str) -> Lines:
    """The last record under another protected header, signed over it."""
    last = sound(ONE).tokens[-1].split(".")
    signing = f"{b64(text.encode())}.{last[1]}".encode()
    return [*sound(ONE).tokens[:-1], seal(signing, raw(*ONE.numbers(signing)))]


def _signature(change: Callable[[bytes], bytes]) -> Lines:
    tokens = sound(ONE).tokens
    last = parse(tokens[-1])
    return [*tokens[:-1], f"{last.signing_input.decode()}.{b64(change(last.signature))}"]


def _parts(change: Callable[[Lines], Lines]) -> Lines:
    tokens = sound(ONE).tokens
    return [*tokens[:-1], ".".join(change(tokens[-1].split(".")))]


def _other_payload(**given: Any) -> Lines:
    """The sale says something else than what was signed."""
    tokens = sound(ONE).tokens
    head, payload, signature = tokens[1].split(".")
    tree = json.loads(unb64(payload))
    tree["body"] |= given
    return [tokens[0], f"{head}.{b64(json.dumps(tree, separators=(',', ':')).encode())}.{signature}", *tokens[2:]]


def _keys(body: Any, *more: Any) -> Lines:
    return sound(ONE).add("key", body).tokens


def _new(**body: Any) -> Lines:
    return sound(ONE).tokens + Made(ONE).add(jid=JID2, body=body).tokens


def _again(seq: int) -> str:
    """Record `seq` under the other valid signature that every ECDSA signature has."""
    record = parse(sound(ONE).tokens[seq - 1])
    r, s = int.from_bytes(record.signature[:32], "big"), int.from_bytes(record.signature[32:], "big")
    return seal(record.signing_input, raw(r, ORDER - s))


def _der(signature: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
    return encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))


def _without(*gone: int) -> Lines:
    return [t for n, t in enumerate(sound(ONE).add().add().tokens, 1) if n not in gone]


def _branch(at: int, **given: Any) -> Lines:
    """Record `at` once more with another content, signed and linked as it should be."""
    made = Made(ONE)
    for n, token in enumerate(sound(ONE).tokens, 1):
        if n == at:
            break
        made.tokens.append(token)
        made.seq, made.prev = n, digest(token)
    return [made.add("clock", boot="b9", **given).tokens[-1]]


def _hid() -> str:
    return json.dumps({"alg": "ES256", "kid": ONE.kid, "typ": "till+jws"}, separators=(",", ":"))


SALE = ("sale", sale())
HEAD = digest(sound(ONE).tokens[-1])
BIG = 2 ** 53

def _forged_key() -> Lines:
    """A key record whose signature does not hold introduces nothing."""
    tokens = sound(ONE).add("key", {"jwk": TWO.jwk}).tokens
    record = parse(tokens[-1])
    return [*tokens[:-1], seal(record.signing_input, bytes(63) + b"\1")]


def _then_linked(twin: str) -> Lines:
    return [*sound(ONE).tokens[:-1], twin, *sound(ONE).add(prev=digest(twin)).tokens[-1:]]


def _longest() -> Lines:
    room = 16_384 - len(sound(ONE).add("note", {"x": ""}).tokens[-1])
    return sound(ONE).add("note", {"x": "x" * (room * 3 // 4 - 2)}).tokens


CASES: dict[str, dict[str, Callable[[], Lines]]] = {
    "TOO_LONG": {
        "at_the_end": lambda: _then("A" * 16_385),
        "at_the_start": lambda: ["A" * 16_385, *sound(ONE).tokens],
        "in_the_middle": lambda: [*sound(ONE).tokens[:2], "A" * 16_385, *sound(ONE).tokens[2:]],
        "a_hundred_thousand": lambda: _then("A" * 100_000),
        "a_whole_token_with_a_tail": lambda: _parts(lambda p: [p[0], p[1], p[2] + "A" * 16_384]),
    },
    "NOT_A_TOKEN": {
        "blank_line": lambda: [*sound(ONE).tokens[:2], "", *sound(ONE).tokens[2:]],
        "words": lambda: _then("what is this"),
        "two_parts": lambda: _parts(lambda p: p[:2]),
        "four_parts": lambda: _parts(lambda p: [*p, p[2]]),
        "padded": lambda: _parts(lambda p: [p[0], p[1], p[2] + "=="]),
        "base64_of_the_old_alphabet": lambda: _parts(lambda p: [p[0], "+" + p[1][1:], p[2]]),
        "signature_of_63_bytes": lambda: _signature(lambda s: s[:63]),
        "signature_of_65_bytes": lambda: _signature(lambda s: s + b"\0"),
        "signature_in_der": lambda: _signature(_der),
        "no_signature": lambda: _parts(lambda p: [p[0], p[1], ""]),
        "stray_bits_in_the_signature": lambda: _parts(lambda p: [p[0], p[1], p[2][:-1] + chr(ord(p[2][-1]) + 1)]),
        "a_space_at_the_end": lambda: _then(sound(ONE).add().tokens[-1] + " "),
        "a_space_in_front": lambda: _then(" " + sound(ONE).add().tokens[-1]),
        "with_another_one_missing": lambda: [*sound(ONE).add().add().tokens[:2], "rubbish", *sound(ONE).add().add().tokens[4:]],
        "json_instead": lambda: _then(_payload().decode()),
        "byte_order_mark": lambda: ["\ufeff" + sound(ONE).tokens[0], *sound(ONE).tokens[1:]],
    },
    "BAD_HEADER": {
        "alg_none": lambda: _header(_hid().replace("ES256", "none")),
        "alg_hs256": lambda: _header(_hid().replace("ES256", "HS256")),
        "alg_in_small_letters": lambda: _header(_hid().replace("ES256", "es256")),
        "alg_twice": lambda: _header('{"alg":"ES256",' + _hid()[1:]),
        "typ_of_an_acknowledgement": lambda: _header(_hid().replace("till+jws", "till-ack+jws")),
        "typ_missing": lambda: _header(json.dumps({"alg": "ES256", "kid": ONE.kid}, separators=(",", ":"))),
        "keys_in_another_order": lambda: _header(f'{{"kid":"{ONE.kid}","alg":"ES256","typ":"till+jws"}}'),
        "spaces": lambda: _header(json.dumps({"alg": "ES256", "kid": ONE.kid, "typ": "till+jws"})),
        "a_key_more": lambda: _header(_hid()[:-1] + ',"crit":["exp"]}'),
        "a_key_of_its_own_inside": lambda: _header(_hid()[:-1] + ',"jwk":' + json.dumps(TWO.jwk, separators=(",", ":")) + "}"),
        "unencoded_payload": lambda: _header(_hid()[:-1] + ',"b64":false}'),
        "kid_cut": lambda: _header(_hid().replace(ONE.kid, ONE.kid[:20])),
        "kid_with_stray_bits": lambda: _header(_hid().replace(ONE.kid, ONE.kid[:-1] + "B")),
        "escaped_letters": lambda: _header(_hid().replace("alg", "\\u0061lg")),
    },
    "BAD_PAYLOAD": {
        "version_two": lambda: _said(v=2),
        "version_in_words": lambda: _said(v="1"),
        "box_in_capitals": lambda: _said(box="BOX-1"),
        "box_empty": lambda: _said(box=""),
        "box_too_long": lambda: _said(box="b" * 33),
        "box_with_a_slash": lambda: _said(box="a/b"),
        "jid_too_short": lambda: _said(jid="AAAA"),
        "jid_with_stray_bits": lambda: _said(jid="A" * 21 + "B"),
        "seq_nought": lambda: _said(seq=0),
        "seq_below_nought": lambda: _said(seq=-5),
        "seq_a_fraction": lambda: _said(seq=5.5),
        "seq_in_words": lambda: _said(seq="5"),
        "seq_beyond_53_bits": lambda: _said(seq=BIG),
        "seq_true": lambda: _said(seq=True),
        "prev_too_short": lambda: _said(prev="abc"),
        "prev_nothing": lambda: _said(prev=None),
        "at_without_offset": lambda: _said(at="2026-03-01T08:00:00"),
        "at_without_t": lambda: _said(at="2026-03-01 08:00:00+08:00"),
        "at_in_month_13": lambda: _said(at="2026-13-01T08:00:00+08:00"),
        "at_a_number": lambda: _said(at=1_772_323_200),
        "clk_unheard_of": lambda: _said(clk="sundial"),
        "boot_empty": lambda: _said(boot=""),
        "mono_below_nought": lambda: _said(mono_ms=-1),
        "kind_in_capitals": lambda: _said(kind="Sale"),
        "kind_empty": lambda: _said(kind=""),
        "sum_below_nought": lambda: _said(sum={"sales_fen": -1, "refunds_fen": 0, "count": 0}),
        "sum_a_list": lambda: _said(sum=[500, 200, 2]),
        "body_a_list": lambda: _said(body=[]),
        "body_nothing": lambda: _said(body=None),
        "a_list": lambda: sound(ONE).said(b"[]").tokens,
        "a_number": lambda: sound(ONE).said(b"5").tokens,
        "nothing": lambda: sound(ONE).said(b"").tokens,
        "cut": lambda: sound(ONE).said(_payload()[:-2]).tokens,
        "something_behind": lambda: sound(ONE).said(_payload() + b"{}").tokens,
        "not_utf_8": lambda: sound(ONE).said(_payload(body={"name": "x"}).replace(b'"x"', b'"\xff"')).tokens,
        "nan": lambda: _replaced(b'"body":{}', b'"body":{"x":NaN}'),
        "nested_too_deep": lambda: _replaced(b'"body":{}', b'"body":{"x":' + b"[" * 3_000 + b"]" * 3_000 + b"}"),
    },
    "KEY_TWICE": {
        "in_the_payload": lambda: _replaced(b'{"v":1', b'{"v":1,"v":1'),
        "in_the_body": lambda: _replaced(b'"body":{', b'"body":{"a":1,"a":2'),
        "in_the_sum": lambda: _replaced(b'"count":2', b'"count":2,"count":2'),
        "the_amount": lambda: _replaced(b'"amount_fen": 500, "cashier"', b'"amount_fen": 500, "amount_fen": 1, "cashier"', *SALE),
        "in_a_line": lambda: _replaced(b'"lines": [{', b'"lines": [{"amount_fen": 1, ', *SALE),
        "once_escaped": lambda: _replaced(b'"body":{', b'"body":{"a":1,"\\u0061":2'),
    },
    "KEY_ORDER": {
        "box_first": lambda: _replaced(b'{"v":1,"box":"box-1"', b'{"box":"box-1","v":1'),
        "sorted": lambda: sound(ONE).said(json.dumps(json.loads(_payload()), sort_keys=True).encode()).tokens,
        "one_missing": lambda: _replaced(b'"clk":"ntp",', b""),
        "one_more": lambda: _said(note="x"),
        "body_missing": lambda: _replaced(b',"body":{}', b""),
        "sum_in_another_order": lambda: _replaced(b'"sales_fen":500,"refunds_fen":200', b'"refunds_fen":200,"sales_fen":500'),
        "sum_with_one_more": lambda: _replaced(b'"count":2', b'"count":2,"more":1'),
        "no_keys": lambda: sound(ONE).said(b"{}").tokens,
    },
    "AMOUNT_NOT_INTEGER": {
        "a_fraction_of_nought": lambda: sound(ONE).add("void", {"amount_fen": 1.0}).tokens,
        "half_a_fen": lambda: sound(ONE).add("sale", sale(500, lines=[{"amount_fen": 499.5}])).tokens,
        "with_an_exponent": lambda: _replaced(b'"body":{', b'"body":{"amount_fen":5e2'),
        "in_words": lambda: sound(ONE).add("void", {"amount_fen": "500"}).tokens,
        "nothing": lambda: sound(ONE).add("void", {"amount_fen": None}).tokens,
        "true": lambda: sound(ONE).add("void", {"amount_fen": True}).tokens,
        "beyond_53_bits": lambda: sound(ONE).add("void", {"amount_fen": BIG}).tokens,
        "deep_inside": lambda: sound(ONE).add("void", {"a": [{"b": {"price_fen": 0.1}}]}).tokens,
        "in_the_sum": lambda: _said(sum={"sales_fen": 500.0, "refunds_fen": 200, "count": 2}),
    },
    "UNKNOWN_KEY": {
        "a_stranger": lambda: sound(ONE).add(signer=TWO).tokens,
        "from_the_start": lambda: sound(TWO).tokens,
        "introduced_by_itself": lambda: sound(ONE).add("key", {"jwk": TWO.jwk}, signer=TWO).add(signer=TWO).tokens,
        "before_it_was_introduced": lambda: sound(ONE).add(signer=TWO).add("key", {"jwk": TWO.jwk}).add(signer=TWO).tokens,
        "another_than_the_one_introduced": lambda: sound(ONE).add("key", {"jwk": TWO.jwk}).add(signer=THREE).tokens,
    },
    "KEY_RETIRED": {
        "at_once": lambda: sound(ONE).add("key", {"jwk": TWO.jwk}).add(signer=ONE).tokens,
        "after_the_new_one": lambda: sound(ONE).add("key", {"jwk": TWO.jwk}).add(signer=TWO).add(signer=ONE).tokens,
        "a_sale": lambda: sound(ONE).add("key", {"jwk": TWO.jwk}).add("sale", sale(500), signer=ONE).tokens,
        "two_keys_ago": lambda: sound(ONE).add("key", {"jwk": TWO.jwk}).add(
            "key", {"jwk": THREE.jwk}, signer=TWO).add(signer=ONE).tokens,
        "introduces_a_third": lambda: sound(ONE).add("key", {"jwk": TWO.jwk}).add("key", {"jwk": THREE.jwk}, signer=ONE).tokens,
        "takes_itself_back": lambda: sound(ONE).add("key", {"jwk": TWO.jwk}).add("key", {"jwk": ONE.jwk}, signer=ONE).tokens,
    },
    "BAD_SIGNATURE": {
        "noughts": lambda: _signature(lambda s: bytes(64)),
        "r_nought": lambda: _signature(lambda s: bytes(32) + s[32:]),
        "s_the_order": lambda: _signature(lambda s: s[:32] + ORDER.to_bytes(32, "big")),
        "halves_swapped": lambda: _signature(lambda s: s[32:] + s[:32]),
        "one_bit": lambda: _signature(lambda s: bytes([s[0] ^ 1]) + s[1:]),
        "of_another_record": lambda: _signature(lambda s: parse(sound(ONE).tokens[0]).signature),
        "of_another_key": lambda: _signature(lambda s: raw(*TWO.numbers(parse(sound(ONE).tokens[-1]).signing_input))),
        "the_amount_was_changed": lambda: _other_payload(order_no="B"),
        "the_cashier_was_changed": lambda: _other_payload(cashier="02"),
        "a_key_record_forged": _forged_key,
    },
    "BAD_KEY": {
        "with_its_private_half": lambda: _keys({"jwk": {**TWO.jwk, "d": "AA"}}),
        "of_another_curve": lambda: _keys({"jwk": {**TWO.jwk, "crv": "P-384"}}),
        "of_another_kind": lambda: _keys({"jwk": {"kty": "OKP", "crv": "Ed25519", "x": TWO.jwk["x"]}}),
        "no_point": lambda: _keys({"jwk": {**TWO.jwk, "x": b64(bytes(32))}}),
        "x_too_short": lambda: _keys({"jwk": {**TWO.jwk, "x": "AAAA"}}),
        "y_missing": lambda: _keys({"jwk": {k: v for k, v in TWO.jwk.items() if k != "y"}}),
        "none": lambda: _keys({}),
        "a_text": lambda: _keys({"jwk": TWO.kid}),
        "a_list": lambda: _keys({"jwk": [TWO.jwk]}),
    },
    "BOX_CHANGED": {
        "at_the_end": lambda: sound(ONE).add(box="box-2").tokens,
        "for_one_record": lambda: sound(ONE).add(box="box-2").add(box="box-2").tokens,
        "with_the_journal": lambda: sound(ONE).tokens + Made(ONE).add(jid=JID2, box="box-2", body={"after": HEAD}).tokens,
    },
    "JID_CHANGED_WITHOUT_AFTER": {
        "naming_nothing": _new,
        "naming_null": lambda: _new(after=None),
        "naming_a_number": lambda: _new(after=4),
        "naming_a_journal_only": lambda: _new(after={"jid": "A" * 22, "seq": 4}),
        "in_its_middle": lambda: sound(ONE).add(jid=JID2, body={"after": HEAD}).tokens,
        "back_to_the_old_one": lambda: _new(after=HEAD) + sound(ONE).tokens[:1],
    },
    "AFTER_NAMES_ANOTHER_HEAD": {
        "of_nothing": lambda: _new(after=EMPTY_DIGEST),
        "of_the_record_before_the_last": lambda: _new(after=digest(sound(ONE).tokens[-2])),
        "of_the_first": lambda: _new(after={"head": digest(sound(ONE).tokens[0]), "seq": 1}),
        "of_no_digest": lambda: _new(after="the old one"),
        "of_the_twin_of_the_last": lambda: _new(after=digest(_again(4))),
    },
    "SEQ_GAP": {
        "one_missing": lambda: _without(2),
        "two_missing": lambda: _without(2, 3),
        "the_first_missing": lambda: _without(1),
        "two_holes": lambda: _without(2, 4),
        "two_swapped": lambda: [sound(ONE).tokens[n] for n in (0, 2, 1, 3)],
        "backwards": lambda: sound(ONE).tokens[::-1],
        "a_leap": lambda: sound(ONE).add(seq=1_000_000).tokens,
    },
    "SEQ_REPEATED": {
        "the_last_twice": lambda: _then(sound(ONE).tokens[-1]),
        "the_first_at_the_end": lambda: _then(sound(ONE).tokens[0]),
        "all_twice": lambda: _then(*sound(ONE).tokens),
        "one_in_the_middle": lambda: [sound(ONE).tokens[n] for n in (0, 1, 1, 2, 3)],
        "under_another_signature": lambda: _then(_again(4)),
    },
    "FORK": {
        "at_the_first": lambda: _then(*_branch(1)),
        "in_the_middle": lambda: _then(*_branch(3)),
        "at_the_last": lambda: _then(*_branch(4)),
        "two_records_of_a_clone": lambda: _then(*sound(ONE).add("clock").tokens[-1:],
                                              *sound(ONE).add("clock", boot="b9").tokens[-1:]),
    },
    "LINK_BROKEN": {
        "to_nothing": lambda: sound(ONE).add(prev=EMPTY_DIGEST).tokens,
        "to_the_record_before_the_last": lambda: sound(ONE).add(prev=digest(sound(ONE).tokens[-2])).tokens,
        "to_another_chain": lambda: sound(ONE).add(prev=digest(sound(TWO).tokens[-1])).tokens,
        "the_first_names_something": lambda: Made(ONE).add(prev=digest("x")).tokens,
        "to_the_twin_of_the_last": lambda: sound(ONE).add(prev=digest(_again(4))).tokens,
        "a_twin_in_its_place": lambda: [*sound(ONE).tokens[:2], _again(3), sound(ONE).tokens[3]],
    },
    "SUM_WRONG": {
        "a_fen_too_much": lambda: sound(ONE).add(sum=Sum(501, 200, 2)).tokens,
        "a_refund_forgotten": lambda: sound(ONE).add(sum=Sum(500, 0, 2)).tokens,
        "one_more_counted": lambda: sound(ONE).add(sum=Sum(500, 200, 3)).tokens,
        "from_nothing_again": lambda: sound(ONE).add(sum=Sum()).tokens,
        "a_sale_not_added": lambda: sound(ONE).add("sale", sale(), sum=Sum(500, 200, 2)).tokens,
        "a_refund_added_to_sales": lambda: sound(ONE).add("refund", {"amount_fen": 5}, sum=Sum(505, 200, 3)).tokens,
        "a_drawer_counted": lambda: sound(ONE).add("drawer", sum=Sum(500, 200, 3)).tokens,
        "carried_into_the_new_journal": lambda: sound(ONE).tokens + Made(ONE).add(
            jid=JID2, body={"after": HEAD}, sum=Sum(500, 200, 2)).tokens,
    },
    "TIME_BACKWARDS_IN_BOOT": {
        "by_one": lambda: sound(ONE).add(mono_ms=3_999).tokens,
        "to_nought": lambda: sound(ONE).add(mono_ms=0).tokens,
        "late_in_words": lambda: sound(ONE).add("drawer", {"late": "true"}, mono_ms=10).tokens,
    },
    "LATE_WRONG": {
        "without_a_gap": lambda: sound(ONE).add("drawer", {"late": True}).tokens,
        "one_more_than_counted": lambda: _gap(1).add("drawer", {"late": True}).add("drawer", {"late": True}).tokens,
        "one_that_waited_is_not_marked": lambda: _gap(2).add("drawer", {"late": True}).add("drawer").tokens,
        "none_that_waited_is_marked": lambda: _gap(2).add("drawer").add("drawer").tokens,
        "marked_in_words": lambda: _gap(1).add("drawer", {"late": "yes"}).tokens,
        "of_a_gap_that_counts_nobody": lambda: _gap(0).add("drawer", {"late": True}).tokens,
        "after_a_whole_gap": lambda: _gap(1).add("drawer", {"late": True}).add("drawer").add("drawer", {"late": True}).tokens,
    },
    "BAD_BODY": {
        "a_sale_without_amount": lambda: sound(ONE).add("sale", {}).tokens,
        "a_refund_without_amount": lambda: sound(ONE).add("refund", {}).tokens,
        "a_sale_below_nought": lambda: sound(ONE).add("sale", sale(-5), sum=Sum(500, 200, 3)).tokens,
        "no_lines": lambda: sound(ONE).add("sale", {"amount_fen": 5, "tenders": [{"amount_fen": 5}]}).tokens,
        "no_tenders": lambda: sound(ONE).add("sale", {"amount_fen": 5, "lines": [{"amount_fen": 5}]}).tokens,
        "lines_an_object": lambda: sound(ONE).add("sale", sale(5, lines={"amount_fen": 5})).tokens,
        "a_line_without_amount": lambda: sound(ONE).add("sale", sale(5, lines=[{"amount_fen": 5}, {}])).tokens,
        "201_lines": lambda: sound(ONE).add("sale", sale(201, lines=[{"amount_fen": 1}] * 201)).tokens,
    },
    "LINES_DO_NOT_ADD_UP": {
        "a_fen_short": lambda: sound(ONE).add("sale", sale(500, lines=[{"amount_fen": 499}])).tokens,
        "one_line_lost": lambda: sound(ONE).add("sale", sale(500, lines=[{"amount_fen": 250}])).tokens,
        "none": lambda: sound(ONE).add("sale", sale(500, lines=[])).tokens,
    },
    "TENDERS_DO_NOT_ADD_UP": {
        "a_fen_more": lambda: sound(ONE).add("sale", sale(500, tenders=[{"amount_fen": 501}])).tokens,
        "one_part_lost": lambda: sound(ONE).add("sale", sale(500, tenders=[{"amount_fen": 100}])).tokens,
        "none": lambda: sound(ONE).add("sale", sale(500, tenders=[])).tokens,
    },
    "NO_RECORDS": {"empty": lambda: []},
    "WHOLE": {
        "four_records": lambda: sound(ONE).tokens,
        "one_record": lambda: Made(ONE).add().tokens,
        "the_other_signature": lambda: _then_linked(_again(4)),
        "a_new_key": lambda: sound(ONE).add("key", {"jwk": TWO.jwk}).add(signer=TWO).tokens,
        "a_key_taken_back": lambda: sound(ONE).add("key", {"jwk": TWO.jwk}).add("key", {"jwk": ONE.jwk}, signer=TWO).add().tokens,
        "a_key_named_once_more": lambda: sound(ONE).add("key", {"jwk": ONE.jwk}).add().tokens,
        "a_new_key_twice": lambda: sound(ONE).add("key", {"jwk": TWO.jwk}).add(
            "key", {"jwk": THREE.jwk}, signer=TWO).add(signer=THREE).tokens,
        "a_new_journal": lambda: _new(after=HEAD),
        "a_new_journal_named_in_full": lambda: _new(after={"jid": "A" * 22, "seq": 4, "head": HEAD}),
        "a_new_boot": lambda: sound(ONE).add(boot="b2", mono_ms=1).tokens,
        "a_late_record": lambda: sound(ONE).add("signer_gap", {"count": 1}).add("drawer", {"late": True}, mono_ms=10).tokens,
        "a_gap_in_a_gap": lambda: _gap(3).add("drawer", {"late": True}).add("signer_gap", {"count": 2}).add(
            "drawer", {"late": True}).add("drawer", {"late": True}).add("drawer").tokens,
        "a_gap_cut_short": lambda: _gap(3).add("drawer", {"late": True}).tokens,
        "the_clock_set_back": lambda: sound(ONE).add(at="1970-01-01T00:00:07+00:00", clk="unset").tokens,
        "a_split_and_a_rounding": lambda: sound(ONE).add("sale", sale(503, tenders=[
            {"amount_fen": 200}, {"amount_fen": 300}, {"method": "round", "amount_fen": 3}])).tokens,
        "names_in_chinese": lambda: sound(ONE).add("sale", sale(5, lines=[{"name": "可口可乐330ml(听)", "amount_fen": 5}])).tokens,
        "200_lines": lambda: sound(ONE).add("sale", sale(200, lines=[{"amount_fen": 1}] * 200)).tokens,
        "a_sale_of_nothing": lambda: sound(ONE).add("sale", sale(0, lines=[{"amount_fen": 5}, {"amount_fen": -5}])).tokens,
        "a_kind_unheard_of": lambda: sound(ONE).add("weather", {"rain": True}).tokens,
        "carriage_returns": lambda: [token + "\r" for token in sound(ONE).tokens],
        "a_leap_second": lambda: sound(ONE).add(at="2026-06-30T23:59:60Z").tokens,
        "the_longest_token": _longest,
    },
}

assert header(ONE.kid) == _hid().encode() and signing_input(ONE.kid, b"")
