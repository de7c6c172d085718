"""The mark in the card's gap, what the kernel is told, and where a key comes from."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from device.appliance import seal_bytes
from device.appliance.seal import NoKey, Sources
from device.appliance.seal_bytes import CARD, OTP, TPM, Mark, key_id, mark_decoded, mark_encoded
from device.keys.sealed import SealingKey

KEY = bytes(range(32))
MARK = Mark(CARD, key_id(KEY), KEY)
FAKE_CREDS = """#!/bin/sh
# A TPM of our own: what it seals opens under the same name alone.
case "$1" in encrypt) echo "$4"; base64 ;; decrypt) read name; [ "$name" = "$2" ] && base64 -d ;; esac
"""


@pytest.fixture
def gap(tmp_path: Path) -> Path:
    path = tmp_path / "till-key"
    path.write_bytes(bytes(1024))
    return path


def sources(gap: Path, **more: str) -> Sources:
    return Sources(gap.with_name("seal.cred"), str(gap), **{"vcio": "/nonexistent", "tpm": "/nonexistent", **more})


def test_a_mark_comes_back_from_either_copy() -> None:
    raw = mark_encoded(MARK)
    assert len(raw) == 512 and mark_decoded(raw + bytes(512)) == mark_decoded(bytes(512) + raw) == MARK
    assert mark_decoded(bytes(1024)) is None and mark_decoded(b"") is None
    for at in range(96):
        assert mark_decoded(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1:]) is None, at


def test_a_mark_shows_nobody_its_key_and_holds_none_that_hardware_keeps() -> None:
    assert KEY.hex() not in repr(MARK) and "00010203" not in repr(MARK)
    assert mark_decoded(mark_encoded(Mark(TPM, key_id(KEY)))) == Mark(TPM, key_id(KEY))


def test_the_structs_are_the_kernels() -> None:
    added = seal_bytes.key_to_add(bytes(64))
    assert len(added) == 80 + 64 and struct.unpack_from("<I", added, 40)[0] == 64
    assert seal_bytes.ADD_KEY >> 16 & 0x3FFF == 80 and seal_bytes.SET_POLICY >> 16 & 0x3FFF == 12
    assert len(seal_bytes.policy(bytes(16))) == 24
    assert seal_bytes.identifier_of(struct.pack("<Q", 24) + seal_bytes.policy(b"i" * 16)) == b"i" * 16
    assert seal_bytes.identifier_of(struct.pack("<Q", 12) + bytes(24)) == b"", "a policy of version 1 is none of ours"


def test_one_time_memory_that_was_never_written_is_no_key() -> None:
    asked = seal_bytes.otp_asked()
    assert len(asked) == 64 and struct.unpack_from("<I", asked)[0] == 64
    rows = struct.pack("<8I", *range(1, 9))
    answer = asked[:4] + struct.pack("<I", 0x80000000) + asked[8:28] + rows + asked[60:]
    assert seal_bytes.otp_answered(answer) == rows
    assert seal_bytes.otp_answered(asked[:28] + rows + asked[60:]) == b"", "the firmware did not answer"
    assert seal_bytes.otp_answered(answer[:28] + bytes(32) + answer[60:]) == b""


def test_a_fresh_card_gets_a_key_and_gives_it_back(gap: Path) -> None:
    place = sources(gap)
    assert place.mark() is None
    mark, key = place.fresh()
    place.keep(mark)
    assert place.mark() == mark and mark.kind == CARD and place.key(mark) == key and len(key) == 32
    with gap.open("r+b") as disk:
        disk.write(b"x" * 512)
    assert place.mark() == mark, "the second copy stands"


def test_a_tpm_is_taken_before_the_card(gap: Path, tmp_path: Path) -> None:
    creds = tmp_path / "systemd-creds"
    creds.write_text(FAKE_CREDS)
    creds.chmod(0o755)
    place = sources(gap, tpm=str(gap), creds=str(creds))
    mark, key = place.fresh()
    place.keep(mark)
    assert mark.kind == TPM and place.key(mark) == key and key not in gap.read_bytes()


def test_a_tpm_that_does_not_give_the_key_back_is_not_trusted_with_it(gap: Path, tmp_path: Path) -> None:
    creds = tmp_path / "systemd-creds"
    creds.write_text("#!/bin/sh\necho sealed\n")
    creds.chmod(0o755)
    mark, key = sources(gap, tpm=str(gap), creds=str(creds)).fresh()
    assert mark.kind == CARD and mark.key == key


def test_a_card_in_another_board_is_named_as_that(gap: Path) -> None:
    with pytest.raises(NoKey, match="the TPM gives no key"):
        sources(gap).key(Mark(TPM, key_id(KEY)))
    with pytest.raises(NoKey, match="one-time memory gives no key"):
        sources(gap).key(Mark(OTP, key_id(KEY)))
    with pytest.raises(NoKey, match="another board"):
        sources(gap).key(Mark(CARD, key_id(bytes(32)), KEY))


def test_the_three_keys_made_of_one_tell_nothing_of_each_other() -> None:
    made = {seal_bytes.key_id(KEY), seal_bytes.folder_key(KEY)[:16], seal_bytes.sealing_key(KEY)[:16], KEY[:16]}
    assert len(made) == 4 and len(seal_bytes.folder_key(KEY)) == 64
    SealingKey(seal_bytes.sealing_key(KEY))                     # takes it
