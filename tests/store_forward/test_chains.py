"""The kept chains of tests/chains/files: each says its own error first.  Whoever writes a verifier can hold his against them."""

from __future__ import annotations

import io
import json

import pytest

from device.store_forward.es256 import public_verifier
from device.store_forward.token import thumbprint
from device.store_forward.verify import DEFECTS, Chain, _walk
from tests.chains import FILES
from tests.chains.cases import CASES, KNOWN

EVERY = [(error, what) for error, cases in CASES.items() for what in cases]


def text_of(error: str, what: str) -> bytes:
    return "".join(line + "\n" for line in CASES[error][what]()).encode()


def keys_text() -> str:
    return json.dumps({"keys": KNOWN}, indent=1) + "\n"


def found(text: bytes) -> list[str]:
    """What the verifier says of a file: `ERROR line N` each."""
    chain = Chain({thumbprint(jwk): public_verifier(jwk) for jwk in KNOWN})
    return [f"{defect.name} line {defect.line}" for defect in _walk(chain, io.BytesIO(text))]


def test_every_error_has_files_and_there_are_more_than_anywhere_else():
    kept = {path.parent.name for path in FILES.glob("*/*.txt")}
    assert kept == set(DEFECTS) | {"WHOLE"} == set(CASES)
    assert len(DEFECTS) > 17 and len(list(FILES.glob("*/*.txt"))) > 119


@pytest.mark.parametrize(("error", "what"), EVERY, ids=[f"{error}-{what}" for error, what in EVERY])
def test_a_kept_chain_says_its_own_error_first(error, what):
    text = (FILES / error / f"{what}.txt").read_bytes()
    said = found(text)
    assert said == [] if error == "WHOLE" else said[0].split()[0] == error, said
    assert text == text_of(error, what), "python -m tests.chains makes it anew"


def test_the_list_of_what_is_expected_is_the_verifiers_own():
    lines = (FILES / "expected.txt").read_text().splitlines()
    told = [f"{error}/{what}.txt: {said}" for error, what in EVERY
            for said in found((FILES / error / f"{what}.txt").read_bytes()) or ["whole"]]
    assert lines == told and (FILES / "keys.json").read_text() == keys_text()
