"""Where the key of this box's encrypted folder lies, and how the kernel is given it.

Hardware before the card: Raspberry Pi's one-time memory where somebody wrote a key into it, a TPM where there is one, else two
sectors outside of the data partition.  What each protects, and what it does not, stands in docs/keys.md.  Needs root.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import subprocess
from pathlib import Path

from device.appliance import seal_bytes
from device.appliance.seal_bytes import CARD, KEY_BYTES, OTP, TPM, Mark

SECTORS = "/dev/mapper/till-key"
VCIO = "/dev/vcio"
TPM_NODE = "/dev/tpmrm0"
NAME = "tillbox-data"
CREDS_S = 30


class NoKey(Exception):
    """One sentence: why there is no key."""


class Sources:
    """The places a key may lie in.  `blob` is where a TPM's sealed key stands, on the data partition in clear."""

    def __init__(self, blob: Path, sectors: str = SECTORS, vcio: str = VCIO, tpm: str = TPM_NODE,
                 creds: str = "systemd-creds") -> None:
        self._blob, self._sectors, self._vcio, self._tpm, self._creds = blob, sectors, vcio, tpm, creds

    def mark(self) -> Mark | None:
        """What the gap says of this card; None when it was never set up.  OSError."""
        fd = os.open(self._sectors, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return seal_bytes.mark_decoded(os.pread(fd, 2 * seal_bytes.SECTOR_BYTES, 0))
        finally:
            os.close(fd)

    def fresh(self) -> tuple[Mark, bytes]:
        """A key for a card that has none, and the mark to keep of it."""
        key, kind = self._otp(), OTP
        if not key:
            key = secrets.token_bytes(KEY_BYTES)
            kind = TPM if self._sealed(key) else CARD
        return Mark(kind, seal_bytes.key_id(key), key if kind == CARD else b""), key

    def keep(self, mark: Mark) -> None:
        """`mark` in both sectors: the first is on the card before the second is touched.  OSError."""
        raw = seal_bytes.mark_encoded(mark)
        fd = os.open(self._sectors, os.O_RDWR | os.O_CLOEXEC)
        try:
            for at in (0, len(raw)):
                os.pwrite(fd, raw, at)
                os.fsync(fd)
        finally:
            os.close(fd)

    def key(self, mark: Mark) -> bytes:
        """The key that `mark` speaks of.  NoKey."""
        key = {CARD: lambda: mark.key, OTP: self._otp, TPM: self._unsealed}[mark.kind]()
        if not key:
            where = {CARD: "the card", OTP: "the board's one-time memory", TPM: "the TPM"}[mark.kind]
            raise NoKey(f"{where} gives no key")
        if seal_bytes.key_id(key) != mark.id:
            raise NoKey("this card was set up in another board")
        return key

    def _otp(self) -> bytes:
        try:
            fd = os.open(self._vcio, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            message = bytearray(seal_bytes.otp_asked())
            fcntl.ioctl(fd, seal_bytes.VCIO_PROPERTY, message, True)
            return seal_bytes.otp_answered(bytes(message))
        except OSError:
            return b""
        finally:
            os.close(fd)

    def _sealed(self, key: bytes) -> bool:
        """Whether the TPM has `key` now, and gives it back."""
        if not os.path.exists(self._tpm):
            return False
        blob = self._ran(["encrypt", "--with-key=tpm2", "--tpm2-pcrs=", f"--name={NAME}", "-", "-"], key)
        if not blob:
            return False
        draft = self._blob.with_name(f".{self._blob.name}.new")
        draft.write_bytes(blob)
        draft.chmod(0o600)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(draft, self._blob)
        os.sync()
        return self._unsealed() == key

    def _unsealed(self) -> bytes:
        try:
            return self._ran(["decrypt", f"--name={NAME}", "-", "-"], self._blob.read_bytes())
        except OSError:
            return b""

    def _ran(self, words: list[str], given: bytes) -> bytes:
        try:
            done = subprocess.run([self._creds, *words], input=given, capture_output=True, timeout=CREDS_S)
        except (OSError, subprocess.TimeoutExpired):
            return b""
        return done.stdout if done.returncode == 0 else b""


# The kernel -----------------------------------------------------------------------------------------------------------

def unlock(mount: Path, key: bytes) -> bytes:
    """Give the file system mounted at `mount` the key; the identifier that its folders name it by.  OSError."""
    fd = os.open(mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        asked = bytearray(seal_bytes.key_to_add(seal_bytes.folder_key(key)))
        fcntl.ioctl(fd, seal_bytes.ADD_KEY, asked, True)
        return seal_bytes.identifier_added(bytes(asked))
    finally:
        os.close(fd)


def encrypt(folder: Path, identifier: bytes) -> None:
    """All that will ever lie in `folder`, empty yet, is encrypted under that key.  OSError."""
    _on(folder, seal_bytes.SET_POLICY, bytearray(seal_bytes.policy(identifier)))


def encrypted_by(folder: Path) -> bytes:
    """The identifier of the key of `folder`; b"" for one that is not encrypted, or not by us.  OSError."""
    try:
        return seal_bytes.identifier_of(bytes(_on(folder, seal_bytes.GET_POLICY, bytearray(seal_bytes.POLICY_ROOM))))
    except OSError as why:
        import errno
        if why.errno == errno.ENODATA:
            return b""
        raise


def _on(folder: Path, request: int, held: bytearray) -> bytearray:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, request, held, True)
        return held
    finally:
        os.close(fd)
