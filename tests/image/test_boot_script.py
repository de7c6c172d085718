"""boot.scr and the environment beside it: the bytes that U-Boot's own tools write, and nothing in them that waits for a person."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import pytest

from device.update.boot_state import FIRST, LEFT, ORDER, SECOND, SECTOR
from image.boot import boot_script, u_boot

tools = pytest.mark.skipif(not shutil.which("mkimage"), reason="mkimage is in u-boot-tools, which is not installed here")


@tools
def test_mkimage_packs_the_same_bytes(tmp_path: Path):
    (tmp_path / "in").write_text("echo one\nreset\n")
    pack = ["mkimage", "-A", "arm64", "-T", "script", "-C", "none", "-n", "Tillbox"]
    subprocess.run([*pack, "-d", tmp_path / "in", tmp_path / "out"], check=True, capture_output=True,
                   env={"SOURCE_DATE_EPOCH": "1764000000", "PATH": "/usr/bin:/bin"})
    assert u_boot.script("echo one\nreset\n", "Tillbox", 1764000000) == (tmp_path / "out").read_bytes()


@tools
def test_mkenvimage_writes_the_same_environment(tmp_path: Path):
    (tmp_path / "in").write_text("bootdelay=-2\nstdin=serial\n")
    subprocess.run(["mkenvimage", "-s", "0x4000", "-p", "0", "-o", tmp_path / "out", tmp_path / "in"], check=True)
    assert u_boot.environment({"bootdelay": "-2", "stdin": "serial"}, 0x4000) == (tmp_path / "out").read_bytes()


def test_an_environment_that_does_not_fit_is_refused():
    assert len(u_boot.environment({"a": "b" * 5}, 13)) == 13
    with pytest.raises(ValueError):
        u_boot.environment({"a": "b" * 6}, 13)


def test_a_script_says_its_own_length_and_sum():
    whole = u_boot.script("reset\n", "x", 7)
    assert struct.unpack_from(">I", whole, 12)[0] == len(whole) - 64
    assert struct.unpack_from(">I", whole, 24)[0] == zlib.crc32(whole[64:])
    assert zlib.crc32(whole[:4] + bytes(4) + whole[8:64]) == struct.unpack_from(">I", whole, 4)[0]


def test_the_sum_of_a_file_stands_as_u_boot_leaves_it_in_memory():
    assert u_boot.checksum(b"123456789") == "cbf43926 2639f4cb", "the one U-Boot's way and the other's"


def test_the_script_names_the_sectors_and_words_of_the_boot_state():
    text = boot_script.text()
    assert f"for sector in {FIRST:x} {SECOND:x};" in text
    assert f"write ${{till_at}} {FIRST:x} 1 && ${{devtype}} write ${{till_at}} {SECOND:x} 1" in text
    assert f"env import -c ${{till_at}} {SECTOR:x} {ORDER} {LEFT['a']} {LEFT['b']}" in text
    assert f"env export -c -s {SECTOR:x} ${{till_at}} {ORDER} {LEFT['a']} {LEFT['b']}" in text


def test_the_script_takes_no_word_of_a_card_that_it_does_not_name():
    """An environment read from a card could otherwise set bootcmd or bootargs."""
    for line in re.findall(r"env import .*?(?:;|&&|$)", boot_script.text(), re.M):
        assert re.search(r"\$\{till_(at|env)\} \S+ [A-Za-z_ ]+", line), line


def test_the_script_ends_in_a_new_start_and_never_waits():
    text = boot_script.text()
    assert text.rstrip().endswith("reset")
    assert not re.search(r"\b(pause|bootmenu|askenv|editenv|loadb|dhcp|tftpboot|pxe)\b", text)


def test_the_script_is_whole_in_its_blocks():
    """U-Boot's shell stops in the middle of a script without a word when a block is not closed."""
    words = re.findall(r"\b(if|fi|for|done)\b", re.sub(r'echo "[^"]*"', "", boot_script.text()))
    assert words.count("if") == words.count("fi") and words.count("for") == words.count("done")
    assert boot_script.text().count("'") % 2 == 0 and boot_script.text().count('"') % 2 == 0
    assert boot_script.build() == boot_script.build()
