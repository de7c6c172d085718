"""The data partition at boot: real e2fsprogs on a plain file; what mounts and what encrypts is played, and tried in the machine."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from device.appliance import fault, mounts, partition, seal
from device.appliance.partition import MAGIC, MAGIC_AT, SUPERBLOCK, Partition
from device.appliance.seal import Sources

MIB = 1 << 20


def linked(inside: Path, at: Path) -> None:
    """A bind, played by a link; the mount of the partition is the folder itself, which outlives a "boot"."""
    at.unlink() if at.is_symlink() else at.rmdir()
    at.symlink_to(inside)


pytestmark = pytest.mark.skipif(shutil.which("mke2fs") is None, reason="e2fsprogs is not installed")


class Card:
    """A card of `size` bytes, all zeros, and a root to lay it below."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int = 24 * MIB) -> None:
        self.disk, self.gap, self.root = tmp_path / "till-data", tmp_path / "till-key", tmp_path / "root"
        self.root.mkdir()
        with self.disk.open("wb") as file:
            file.truncate(size)
        self.gap.write_bytes(bytes(1024))
        self.policies: dict[str, bytes] = {}
        self.programs = tmp_path / "bin"
        self.programs.mkdir()
        self.program("resize2fs", "#!/bin/sh\nexec /usr/sbin/resize2fs -f \"$1\"\n")
        monkeypatch.setenv("PATH", f"{self.programs}:/usr/sbin:/usr/bin:/sbin:/bin")
        monkeypatch.setattr(partition, "NODE_S", 0.0)
        monkeypatch.setattr(mounts, "mount", lambda *_: None)
        monkeypatch.setattr(mounts, "bind", linked)
        monkeypatch.setattr(seal, "unlock", lambda mount, key: key[:16])
        monkeypatch.setattr(seal, "encrypt", lambda folder, identifier: self.policies.update(box=identifier))
        monkeypatch.setattr(seal, "encrypted_by", lambda folder: self.policies.get("box", b""))

    def program(self, name: str, text: str) -> None:
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def boot(self) -> Partition:
        """The next boot: nothing of /run outlives the last one, and no bind."""
        shutil.rmtree(self.root / "run", ignore_errors=True)
        for bind in partition.BINDS:
            at = self.root / bind.at[1:]
            if at.is_symlink():
                at.unlink()
        self.now = Partition(str(self.disk), self.root,
                             Sources(self.root / "data/seal.cred", str(self.gap), "/nonexistent", "/nonexistent"))
        self.sells = self.now.ready()
        return self.now

    @property
    def fault(self) -> str:
        said = fault.said(self.root)
        assert (said is None) == self.sells
        return said[0] if said else ""

    def broken(self, at: int, count: int) -> None:
        with self.disk.open("r+b") as disk:
            disk.seek(at)
            disk.write(bytes(count))

    def magic(self) -> bytes:
        return self.disk.read_bytes()[SUPERBLOCK + MAGIC_AT:][:2]


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Card:
    return Card(tmp_path, monkeypatch)


def sold(card: Card) -> Path:
    """Something of the till's on the partition."""
    file = card.root / "var/lib/tillbox/journal.db"
    file.write_text("a sale")
    return file


def test_a_fresh_card_is_made_and_sells(card: Card) -> None:
    made = card.boot()
    assert card.fault == "" and card.magic() == MAGIC and "made a file system on a fresh card" in made.told
    assert (card.root / "run/credstore/tillbox-seal").stat().st_mode & 0o777 == 0o600
    for at in ("var/lib/tillbox", "etc/tillbox", "etc/wpa_supplicant", "var/lib/tillbox/second", "var/lib/tillbox-slot"):
        assert (card.root / at).is_dir(), at
    assert (card.root / "var/lib/tillbox/second").resolve() == card.root / "data/second", "the second copy lies in clear"
    assert (card.root / "var/lib/tillbox").resolve() == card.root / "data/box/state"
    assert card.policies, "nothing of the till's lies in clear but that"


def test_the_next_boot_makes_nothing_and_finds_what_was_sold(card: Card) -> None:
    card.boot()
    sold(card)
    sealing = (card.root / "run/credstore/tillbox-seal").read_bytes()
    gap = card.gap.read_bytes()
    again = card.boot()
    assert card.fault == "" and again.told == []
    assert (card.root / "var/lib/tillbox/journal.db").read_text() == "a sale"
    assert (card.root / "run/credstore/tillbox-seal").read_bytes() == sealing and card.gap.read_bytes() == gap


def test_a_first_boot_that_is_cut_anywhere_is_begun_again(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = ("_mounted", "_box", "_handed", "_laid")
    for step in steps:
        with monkeypatch.context() as cut:
            cut.setattr(Partition, step, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                card.boot()
    card.boot()
    assert card.fault == ""
    sold(card)


def test_a_lost_superblock_is_taken_from_its_copies(card: Card) -> None:
    card.boot()
    sold(card)
    card.broken(SUPERBLOCK, 1024)
    mended = card.boot()
    assert card.fault == "" and card.magic() == MAGIC and any("mend" in line for line in mended.told)
    assert (card.root / "var/lib/tillbox/journal.db").read_text() == "a sale"


def test_a_partition_beyond_mending_is_left_as_it_is(card: Card) -> None:
    card.boot()
    card.broken(0, 24 * MIB)
    before = card.disk.read_bytes()
    card.boot()
    assert card.fault == "data_corrupt" and card.disk.read_bytes() == before, "nothing that held something is made anew"
    said = fault.said(card.root)
    assert said is not None and "Bad magic number" in said[1], "not the last line of e2fsck's advice"


def test_a_card_that_was_flashed_again_is_fresh(card: Card) -> None:
    """The image's zeros lie over mark and superblock; copies of the old one further in must not come to life."""
    card.boot()
    sold(card)
    card.broken(0, MIB)
    card.gap.write_bytes(bytes(1024))
    shutil.rmtree(card.root / "data")
    card.boot()
    assert card.fault == "" and not (card.root / "var/lib/tillbox/journal.db").exists()


def test_a_lost_mark_is_said_and_nothing_is_made_over_the_books(card: Card) -> None:
    card.boot()
    sold(card)
    card.gap.write_bytes(bytes(1024))
    card.boot()
    assert card.fault == "data_key" and card.gap.read_bytes() == bytes(1024)
    assert card.magic() == MAGIC and (card.root / "data/box/state/journal.db").exists()


def test_another_cards_key_does_not_open_it(card: Card) -> None:
    card.boot()
    card.policies["box"] = b"another key's.."
    card.boot()
    assert card.fault == "data_key"


def test_a_partition_that_can_only_be_read_says_so_and_keeps_what_was_sold(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    card.boot()
    sold(card)
    real = os.statvfs
    monkeypatch.setattr(partition.os, "statvfs", lambda path: os.statvfs_result(
        (*real(path)[:8], real(path).f_flag | os.ST_RDONLY, *real(path)[9:])))
    card.boot()
    assert card.fault == "data_readonly"
    assert (card.root / "var/lib/tillbox/journal.db").read_text() == "a sale", "laid where it can be saved from"


def test_a_partition_that_never_comes_up_is_named(card: Card) -> None:
    card.disk.unlink()
    card.boot()
    assert card.fault == "data_gone"


def test_a_mount_that_fails_is_a_fault_with_the_kernels_own_words(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def refused(source: str, at: Path, kind: str, options: str) -> None:
        asked.append(options)
        raise OSError(errno.EROFS if "ro" not in options.split(",") else errno.EUCLEAN, "Structure needs cleaning")
    monkeypatch.setattr(mounts, "mount", refused)
    card.boot()
    said = fault.said(card.root)
    assert card.fault == "data_corrupt" and said is not None and "Structure needs cleaning" in said[1]
    assert asked == ["errors=remount-ro", "errors=remount-ro,ro"], "a card that refuses to be written is still read"


def test_a_larger_card_is_grown_into(card: Card) -> None:
    card.boot()
    with card.disk.open("r+b") as disk:
        disk.truncate(40 * MIB)
    grown = card.boot()
    assert card.fault == "" and "grew the data partition to 40 MiB" in grown.told
    assert partition._fs_bytes(str(card.disk)) == 40 * MIB
    assert subprocess.run(["/usr/sbin/e2fsck", "-fn", str(card.disk)], capture_output=True).returncode == 0


def test_the_first_word_of_a_fault_stands(tmp_path: Path) -> None:
    fault.say("data_corrupt", "first", tmp_path)
    fault.say("data_gone", "second", tmp_path)
    assert fault.said(tmp_path) == ("data_corrupt", "first")
    (tmp_path / "run/till/fault").write_text("{")
    assert fault.said(tmp_path)[0] == "data_gone"                                   # type: ignore[index]
