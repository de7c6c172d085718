"""The verifier: its walk, its command, and an independent library that agrees on every signature.  Each error: test_chains.py."""

import base64
import io
import json
import re
import tracemalloc

import jwt
import pytest

from device.drivers.signer.file import FileSigner
from device.store_forward import verify as verifier
from device.store_forward.es256 import public_verifier
from device.store_forward.token import EMPTY_DIGEST, digest, parse, seal
from device.store_forward.verify import RECENT_MAX, main, verify
from tests import ROOT
from tests.chains import JID, JID2, Made, sound


@pytest.fixture(scope="module")
def signers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    return FileSigner(folder / "one"), FileSigner(folder / "two")


def names(lines, signer, start=None) -> list[str]:
    return [d.name for d in verify(lines, {signer.kid: public_verifier(signer.jwk)}, start)]


def bad_signature(one, two) -> list[str]:
    tokens = sound(one).tokens
    last = parse(tokens[-1])
    return [*tokens[:-1], seal(last.signing_input, bytes(64))]


def test_a_whole_chain_has_no_defect_and_can_be_taken_up_in_the_middle(signers):
    one, _ = signers
    tokens = sound(one).tokens
    assert names(tokens, one) == []
    assert names(tokens[2:], one, (2, digest(tokens[1]))) == []
    assert names(tokens[2:], one, (2, digest(tokens[0]))) == ["LINK_BROKEN"]
    assert names([], one, (2, digest(tokens[1]))) == []


def test_a_new_key_is_accepted_after_the_old_one_introduced_it_and_not_before(signers):
    one, two = signers
    assert names(sound(one).add("key", {"jwk": two.jwk}).add(signer=two).tokens, one) == []
    assert names(sound(one).add("key", {"jwk": two.jwk}, signer=two).add(signer=two).tokens, one) == ["UNKNOWN_KEY", "UNKNOWN_KEY"]


def test_a_new_journal_that_names_the_old_head_is_sound(signers):
    one, _ = signers
    old = sound(one).tokens
    for after in (digest(old[-1]), {"jid": JID, "seq": 4, "head": digest(old[-1])}):
        new = Made(one).add(jid=JID2, body={"after": after}).add(jid=JID2)
        assert names(old + new.tokens, one) == []
        assert names(new.tokens, one, (4, digest(old[-1]))) == []


def test_a_defect_does_not_stop_the_run_nor_breed_others(signers):
    one, _ = signers
    lines = sound(one).add("sale", {"amount_fen": 5}).add().add(mono_ms=1).add().tokens
    found = [(d.name, d.line) for d in verify(lines, {one.kid: public_verifier(one.jwk)})]
    assert found == [("BAD_BODY", 5), ("TIME_BACKWARDS_IN_BOOT", 7)]


def test_memory_does_not_grow_with_the_chain(signers):
    one, _ = signers
    made, chain = Made(one), verifier.Chain({one.kid: public_verifier(one.jwk)})
    tracemalloc.start()
    held, fed = [], 0
    for _ in range(2):
        for _ in range(RECENT_MAX + 50):
            token = made.add().tokens.pop()
            assert chain.feed(token) == []
            fed += len(token)
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert held[1] - held[0] < fed / 10


def test_a_late_record_may_be_older_within_its_boot(signers):
    chain = sound(signers[0]).add("signer_gap", {"count": 1}).add("drawer", {"late": True}, mono_ms=10)
    assert names(chain.tokens, signers[0]) == []


def test_changing_any_one_byte_is_noticed(signers):
    one, _ = signers
    lines = sound(one).tokens
    for at in range(0, len(lines[1]), 7):
        spoiled = lines[1][:at] + ("A" if lines[1][at] != "A" else "B") + lines[1][at + 1:]
        assert names([lines[0], spoiled, *lines[2:]], one), at


def test_an_independent_library_checks_the_same_tokens(signers):
    one, _ = signers
    key = jwt.PyJWK(one.jwk, algorithm="ES256").key
    for token in sound(one).tokens:
        assert jwt.api_jws.decode(token, key, algorithms=["ES256"]) == base64.urlsafe_b64decode(token.split(".")[1] + "==")
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.api_jws.decode(bad_signature(*signers)[-1], key, algorithms=["ES256"])


@pytest.fixture
def files(tmp_path, signers):
    keys, chain = tmp_path / "keys.json", tmp_path / "chain"
    keys.write_text(json.dumps({"keys": [signers[0].jwk]}))
    chain.write_text("\n".join(sound(signers[0]).tokens) + "\n")
    return chain, keys


def test_the_command_says_whole_or_names_each_defect(files, capsys):
    chain, keys = files
    assert main([str(chain), "--keys", str(keys)]) == 0
    with chain.open("a") as file:
        file.write("x" * 40_000 + "\nrubbish\n")
    capsys.readouterr()
    assert main([str(chain), "--keys", str(keys)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said] == ["TOO_LONG line 5", "NOT_A_TOKEN line 6"]
    assert main([str(chain), "--keys", str(keys), "--json"]) == 1
    *found, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert [d["line"] for d in found] == [5, 6] and summary["seq"] == 4 and summary["whole"] is False


def test_the_command_reads_standard_input_and_goes_on_from_a_head(files, capsys, monkeypatch):
    chain, keys = files
    lines = chain.read_text().split()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(lines[1:]).encode())))
    assert main(["-", "--keys", str(keys), "--from", f"1:{digest(lines[0])}"]) == 0
    assert capsys.readouterr().out.startswith("whole: 3 records, the last is 4:")


@pytest.mark.parametrize("spoil", [
    ["missing", "--keys", "KEYS"], ["CHAIN", "--keys", "CHAIN"], ["CHAIN"], ["CHAIN", "--keys", "KEYS", "--from", "x"],
    ["CHAIN", "--keys", "KEYS", "--from", "0:" + EMPTY_DIGEST], ["CHAIN", "--keys", "nowhere"],
])
def test_arguments_that_do_not_serve_get_one_sentence(files, capsys, spoil):
    words = {"CHAIN": str(files[0]), "KEYS": str(files[1])}
    assert main([words.get(word, word) for word in spoil]) == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1


def test_doc_and_code_name_the_same_errors():
    text = (ROOT / "docs" / "verify.md").read_text()
    assert re.findall(r"^\| `([A-Z_]+)` \| (.*) \|$", text, re.M) == list(verifier.DEFECTS.items())
