"""The data partition at boot: mended, made on a fresh card, grown, mounted, its folder opened, laid where the till looks.

A file system is made in one case alone: the card's gap has no mark, and there is no superblock.  Nothing that held something
is ever made anew: a partition that cannot be mended is left as it is, and the box says so and sells nothing.  Needs root.

| on the partition | where it is seen | what |
|---|---|---|
| `box/` (encrypted) | | the key of it: `seal.py` |
| `box/state` | /var/lib/tillbox | the till's state folder |
| `box/etc` | /etc/tillbox | box.toml |
| `box/wifi` | /etc/wpa_supplicant | the Wi-Fi's name and password |
| `second/` | /var/lib/tillbox/second | the journal's second copy, in clear: it can be read when the key is lost |
| `update/` | /var/lib/tillbox-slot | what an update is about to write |
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from device.appliance import fault, mounts, seal
from device.appliance.seal import NoKey, Sources
from device.appliance.seal_bytes import Mark, sealing_key

DEVICE = "/dev/mapper/till-data"
MOUNT = "/data"
OWNER, SLOT_OWNER = "tillbox", "tillbox-slot"
NODE_S, NODE_BEAT_S = 10.0, 0.1
CHECK_S = 600                            # e2fsck of a large card that was cut off; the till waits, for it has nowhere to write
GROW_BYTES = 4 << 20                     # less than this is not worth a growing
SUPERBLOCK, MAGIC_AT, MAGIC = 1024, 0x38, b"\x53\xef"
OPTIONS = "errors=remount-ro"
MENDED, UNMENDED = 1 | 2, 4              # e2fsck's exit status: bits
READONLY = "The data partition can only be read: nothing can be sold, and what was sold is kept."
MAKE = ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "till-data", "-m", "1", "-O", "encrypt,metadata_csum", "-E", "lazy_itable_init=1"]


class Bind(NamedTuple):
    """`inside` the partition is seen at `at`; made there when it is missing, for `owner`, with `mode`."""

    inside: str
    at: str
    owner: str
    mode: int


BINDS = (Bind("box/state", "/var/lib/tillbox", OWNER, 0o700), Bind("box/etc", "/etc/tillbox", OWNER, 0o750),
         Bind("box/wifi", "/etc/wpa_supplicant", "root", 0o700), Bind("second", "/var/lib/tillbox/second", OWNER, 0o700),
         Bind("update", "/var/lib/tillbox-slot", SLOT_OWNER, 0o700))


class Broken(Exception):
    """Why the box cannot sell."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code, self.sentence = code, sentence


class Partition:
    """Below `root` everything is looked for; a test has its own, and its own programs at the front of PATH."""

    def __init__(self, device: str = DEVICE, root: Path = Path("/"), sources: Sources | None = None) -> None:
        self.device, self.root = device, root
        self.mount = root / MOUNT[1:]
        self.sources = sources or Sources(self.mount / "seal.cred")
        self.told: list[str] = []                # what was done, for the log

    def ready(self) -> bool:
        """Whether the box may sell; if not, the fault is said."""
        try:
            self._ready()
            return True
        except Broken as why:
            fault.say(why.code, why.sentence, self.root)
            self.told.append(f"{why.code}: {why.sentence}")
        except OSError as why:                   # the card itself gave up in the middle
            if why.errno == errno.EROFS:
                fault.say("data_readonly", READONLY, root=self.root)
                self.told.append(READONLY)
                return False
            sentence = f"The data partition cannot be used: {why.filename or self.device}: {why.strerror}."
            fault.say("data_gone", sentence, root=self.root)
            self.told.append(sentence)
        return False

    def _ready(self) -> None:
        self._awaited()
        mark = self.sources.mark()
        if not self._superblock() and mark is None:
            self._made()
        else:
            self._mended()
        self._mounted()
        self._opened(mark)
        self._laid()
        if os.statvfs(self.mount).f_flag & os.ST_RDONLY:
            raise Broken("data_readonly", READONLY)

    def _awaited(self) -> None:
        until_s = time.monotonic() + NODE_S
        while not os.path.exists(self.device):
            if time.monotonic() > until_s:
                raise Broken("data_gone", f"There is no data partition: {self.device} did not come up.")
            time.sleep(NODE_BEAT_S)

    # The file system -------------------------------------------------------------------------------------------------

    def _superblock(self) -> bool:
        with open(self.device, "rb") as disk:
            return os.pread(disk.fileno(), 2, SUPERBLOCK + MAGIC_AT) == MAGIC

    def _made(self) -> None:
        status, said = _ran(MAKE + [self.device])
        if status:
            raise Broken("data_gone", f"No file system can be made on the data partition: {said}.")
        self.told.append("made a file system on a fresh card")

    def _mended(self) -> None:
        """e2fsck, first what it does of its own accord, then everything; it finds the copies of a lost superblock itself."""
        status, said = _ran(["e2fsck", "-p", self.device])
        if status & ~MENDED:
            status, said = _ran(["e2fsck", "-f", "-y", self.device])
            self.told.append(f"e2fsck had to mend the data partition: status {status}")
            if status & UNMENDED and not status & ~(MENDED | UNMENDED):
                status, said = _ran(["e2fsck", "-f", "-y", self.device])        # what the first round brought to light
        elif status:
            self.told.append("e2fsck mended the data partition")
        if status & ~MENDED:
            raise Broken("data_corrupt", f"The data partition cannot be mended: {said}. Nothing on it was made anew.")

    def _mounted(self) -> None:
        self.mount.mkdir(exist_ok=True)
        try:
            try:
                mounts.mount(self.device, self.mount, "ext4", OPTIONS)
            except OSError as why:
                if why.errno not in (errno.EROFS, errno.EACCES):
                    raise
                mounts.mount(self.device, self.mount, "ext4", f"{OPTIONS},ro")    # the card refuses to be written
        except OSError as why:
            raise Broken("data_corrupt", f"The data partition cannot be mounted: {why.strerror}.") from None
        held = os.statvfs(self.mount)
        with open(self.device, "rb") as disk:
            size = disk.seek(0, os.SEEK_END)
        if size - _fs_bytes(self.device) > GROW_BYTES and not held.f_flag & os.ST_RDONLY:
            status, said = _ran(["resize2fs", self.device])      # while it is mounted, so that a cut leaves it whole
            self.told.append(f"grew the data partition to {size >> 20} MiB" if not status else f"could not grow it: {said}")

    # The folder that is encrypted --------------------------------------------------------------------------------------

    def _opened(self, known: Mark | None) -> None:
        box = self.mount / "box"
        try:
            if known is None:
                if box.exists():
                    raise NoKey("the mark in the card's gap is gone, and with it the key")
                known, key = self.sources.fresh()
                self.sources.keep(known)                     # before anything is encrypted under it
                self.told.append(f"made a key for the data partition, kept in: {known.kind}")
            else:
                key = self.sources.key(known)
        except NoKey as why:
            raise Broken("data_key", f"The data partition's encrypted folder cannot be opened: {why}. The second copy of the "
                         "journal lies beside it in clear.") from None
        try:
            identifier = seal.unlock(self.mount, key)
        except OSError as why:
            raise Broken("data_key", f"This kernel does not open the encrypted folder: {why.strerror}.") from None
        if not box.exists():
            self._box(box, identifier)
        elif seal.encrypted_by(box) != identifier:
            raise Broken("data_key", "The data partition's encrypted folder was made under another key.")
        self._handed(key)

    def _box(self, box: Path, identifier: bytes) -> None:
        draft = box.with_name("box.new")
        shutil.rmtree(draft, ignore_errors=True)             # of a first boot that was cut off
        draft.mkdir(mode=0o755)
        seal.encrypt(draft, identifier)
        draft.rename(box)
        _synced(self.mount)

    def _handed(self, key: bytes) -> None:
        """The key for channel keys, where systemd looks for the till's credentials: in memory, for root."""
        store = self.root / "run/credstore"
        store.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(store / "tillbox-seal", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(sealing_key(key))

    # Where the till looks ------------------------------------------------------------------------------------------------

    def _laid(self) -> None:
        for bind in BINDS:
            inside, at = self.mount / bind.inside, self.root / bind.at[1:]
            if not inside.is_dir():
                inside.mkdir(mode=bind.mode)
                _synced(inside.parent)
            _given(inside, bind.owner, bind.mode)
            at.mkdir(parents=True, exist_ok=True)
            if at.parent == self.root / "var/lib/tillbox":
                _given(at, bind.owner, bind.mode)
            try:
                mounts.bind(inside, at)
            except OSError as why:
                raise Broken("data_gone", f"{bind.at} cannot be laid on the data partition: {why.strerror}.") from None


def _given(folder: Path, owner: str, mode: int) -> None:
    """To `owner`, who may be nobody on an image without that part; on a partition that can only be read it stays as it is."""
    try:
        folder.chmod(mode)
        shutil.chown(folder, owner, owner)
    except (LookupError, OSError):
        pass


def _fs_bytes(device: str) -> int:
    """Size of the ext4 on `device`, as its superblock says it."""
    with open(device, "rb") as disk:
        held = os.pread(disk.fileno(), 1024, SUPERBLOCK)
    blocks = int.from_bytes(held[4:8], "little") | int.from_bytes(held[0x150:0x154], "little") << 32
    return blocks * (1024 << int.from_bytes(held[0x18:0x1C], "little"))


def _ran(words: list[str]) -> tuple[int, str]:
    """Exit status, and one line of what the program said."""
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=CHECK_S,
                              env={"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), "LC_ALL": "C"})
    except subprocess.TimeoutExpired:
        return 255, f"{words[0]} did not end within {CHECK_S} s"
    except OSError as why:
        return 255, f"{words[0]}: {why.strerror}"
    lines = (done.stderr + done.stdout).decode(errors="replace").strip().splitlines()
    status = done.returncode if done.returncode >= 0 else 255
    told = [line for line in lines if line.startswith(f"{words[0]}: ")] + lines[-1:]    # what it complains of; else its last word
    return status, told[0].strip().rstrip(".")[:200] if told else f"status {status}"


def _synced(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
