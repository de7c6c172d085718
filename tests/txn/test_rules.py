"""The rule table: data with a version, taken whole or refused whole, believed only when the fleet signed it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import msgspec
import pytest

from device import ruled as room
from device import rules
from device.config import parse, to_terms
from device.daemon import show_supervisor
from device.drivers.signer.file import FileSigner
from device.errors import ConfigError
from device.ruled import ruled
from device.store_forward.es256 import public_verifier
from device.txn.approval import badge_hash, pin_hash
from device.types import Terms
from fleet.__main__ import main as tillfleet
from fleet.keys import SigningKey

SHIPPED = json.loads((Path(rules.__file__).with_name("rules.json")).read_bytes())


def table(**changes) -> dict:
    return json.loads(json.dumps(SHIPPED)) | changes


def read(document: dict) -> rules.RuleTable:
    return rules.parse(json.dumps(document).encode())


def test_the_shipped_table_names_every_channel_and_wallet():
    shipped = read(SHIPPED)
    assert {name for name, _ in shipped.rules} >= {"wechat", "wechat.code", "alipay", "alipay.code", "unionpay", "unionpay.code",
                                                  "gateway", "gateway.code", "card.card"}
    assert {code.wallet for code in shipped.codes} == {"wechat", "alipay", "unionpay", "ecny"}
    terms = Terms(rules=shipped.rules, codes=shipped.codes)
    assert terms.rules_of("wechat", "code").undo_moves_money and not terms.rules_of("wechat").undo_moves_money


def spoilt(where: str, key: str, value: object) -> dict:
    document = table()
    document["channels"][where]["qr"][key] = value
    return document


@pytest.mark.parametrize(("document", "says"), [
    (spoilt("wechat", "give_up_s", 0), "channels.wechat.qr"),
    (spoilt("alipay", "give_up_ms", 300), "channels.alipay.qr"),
    (spoilt("gateway", "dead_after_s", 5), "a live order is not dead"),
    (spoilt("gateway", "pace_s", [[60, 2], [30, 5]]), "each step must end after"),
    (table(channels={"wechat": {"face": {}}}), "no way to pay"),
    (table(version=0), "version"),
    (table(codes=[{"wallet": "wechat", "low": "15", "high": "10", "shortest": 18, "longest": 18}]), "ends before it begins"),
    (table(more=1), "more"),
])
def test_a_table_with_a_fault_is_refused_with_its_place(document, says):
    with pytest.raises(ConfigError) as fault:
        read(document)
    assert says in str(fault.value)


def test_every_fault_is_named_at_once():
    document = spoilt("wechat", "give_up_s", 0)
    document["channels"]["alipay"]["qr"]["give_up_s"] = 0
    with pytest.raises(ConfigError) as fault:
        read(document)
    assert "channels.wechat.qr" in str(fault.value) and "channels.alipay.qr" in str(fault.value)


def test_only_a_table_that_the_fleet_signed_is_believed(tmp_path):
    ours, theirs = SigningKey(tmp_path / "a.pem"), SigningKey(tmp_path / "b.pem")
    token = rules.sealed(json.dumps(SHIPPED).encode(), ours.kid, ours.sign)
    assert rules.opened(token, {ours.kid: public_verifier(ours.jwk)}) == read(SHIPPED)
    for keys in ({}, {ours.kid: public_verifier(theirs.jwk)}):
        with pytest.raises(ConfigError):
            rules.opened(token, keys)
    head, body, signature = token.split(b".")
    with pytest.raises(ConfigError):
        rules.opened(head + b"." + body[:-2] + b"AA." + signature, {ours.kid: public_verifier(ours.jwk)})


@pytest.fixture
def box(tmp_path):
    """Gives the terms that a box would start with, and a way to sign a table of some version for it."""
    def signed(version: int, **changes) -> None:
        (tmp_path / "table.json").write_text(json.dumps(table(version=version, **changes)))
        assert tillfleet(["rules", str(tmp_path / "table.json"), "--key", str(tmp_path / "rules.pem"),
                          "--out", str(tmp_path / "rules.jws")]) == 0

    def started() -> tuple[Terms, str]:
        config = parse({"box": "b", "box_no": "000001", "tenant": "t", "state_dir": str(tmp_path),
                        "rules_file": "rules.jws", "rules_key_file": "rules.jwk"})
        return ruled(Terms(), config)
    return signed, started


def test_a_newer_table_is_taken_and_kept_an_older_one_is_not(box):
    signed, started = box
    slow = table()["channels"]
    slow["wechat"]["qr"]["give_up_s"] = 111
    signed(7, channels=slow)
    terms, fault = started()
    assert (terms.rules_version, terms.rules_of("wechat").give_up_ms, fault) == (7, 111_000, "")
    signed(6)
    terms, fault = started()
    assert terms.rules_version == 7 and "older" in fault


def test_box_toml_changes_what_it_names_and_nothing_else(tmp_path):
    def started(**written):
        config = parse({"box": "b", "box_no": "000001", "tenant": "t", "state_dir": str(tmp_path), "merchant_keys_on_box": True,
                        "channel": {"unionpay": {"base_url": "https://u.example", "mchid": "1", "serial_no": "1",
                                                 "private_key_file": "k", "platform_key_file": "p"} | written}})
        return dict(ruled(to_terms(config), config)[0].rules)

    shipped = dict(read(SHIPPED).rules)
    assert started() == shipped                                           # an unpaid QR of UnionPay lives a day, not two hours
    own = started(give_up_s=111, refund_query_s=7)
    assert own["unionpay"] == msgspec.structs.replace(shipped["unionpay"], give_up_ms=111_000, refund_query_ms=7_000)
    assert own["unionpay.code"] == msgspec.structs.replace(shipped["unionpay.code"], refund_query_ms=7_000)
    assert own["wechat"] == shipped["wechat"]


def test_a_spoilt_table_leaves_the_one_that_was_taken(box, tmp_path):
    signed, started = box
    signed(7)
    started()
    (tmp_path / "rules.jws").write_bytes(b"x.y.z")
    terms, fault = started()
    assert terms.rules_version == 7 and "not taken" in fault
    (tmp_path / "rules.taken").unlink()
    assert started()[0].rules_version == SHIPPED["version"]


def test_a_table_that_was_checked_once_is_believed_by_the_boxs_own_proof_and_no_other(box, tmp_path, monkeypatch):
    signed, started = box
    FileSigner(tmp_path / "record.key")
    signed(7)
    kept, proof, checks = tmp_path / "rules.taken", tmp_path / "rules.taken.proof", []
    plain = room.verifiers
    monkeypatch.setattr(room, "verifiers", lambda *asked: checks.append(asked) or plain(*asked))

    def checked() -> int:
        checks.clear()
        assert started()[0].rules_version == 7
        return len(checks)

    assert checked() == 1 and checked() == 0                              # taken; then known
    held = proof.read_bytes()
    proof.write_bytes(held[:-1] + (b"1" if held[-1:] == b"0" else b"0"))
    assert checked() == 1 and proof.read_bytes() == held                  # what proves nothing is made anew by the signature
    FileSigner(tmp_path / "other.key")
    (tmp_path / "other.key").replace(tmp_path / "record.key")
    assert checked() == 1 and checked() == 0 and proof.read_bytes() != held
    other = SigningKey(tmp_path / "other.pem")
    fleets = (tmp_path / "rules.jwk").read_bytes()
    (tmp_path / "rules.jwk").write_text(json.dumps(other.jwk))            # the fleet's key is another: nothing of the old one holds
    assert started()[0].rules_version == SHIPPED["version"]
    (tmp_path / "rules.jwk").write_bytes(fleets)
    assert checked() == 0                                                 # and what was proven under it still is
    token = rules.sealed(json.dumps(table(version=9)).encode(), other.kid, other.sign)
    kept.write_bytes(token)
    assert started()[0].rules_version == 7                                # the proof is of one table; the fleet's stands by


def test_the_fleet_signs_no_table_that_a_box_would_refuse(tmp_path, capsys):
    (tmp_path / "t.json").write_text(json.dumps(table(version=0)))
    assert tillfleet(["rules", str(tmp_path / "t.json"), "--key", str(tmp_path / "k.pem"), "--out", str(tmp_path / "o")]) == 2
    assert "version" in capsys.readouterr().err and not (tmp_path / "o").exists()


def test_a_supervisor_is_kept_as_hashes_alone(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("BOSS-1\n4711\n"))
    assert show_supervisor(["Wang"]) == 0
    import tomllib
    (told,) = tomllib.loads(capsys.readouterr().out)["supervisor"]
    assert told["badge"] == badge_hash("BOSS-1") and told["pin"] == pin_hash("4711", told["pin"].partition("$")[0])
    config = parse({"box": "b", "box_no": "000001", "tenant": "t", "supervisor": [told]})
    assert msgspec.to_builtins(config.supervisors[0]) == told
