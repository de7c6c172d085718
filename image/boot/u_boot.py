"""Two of U-Boot's formats, written without its tools: a script it can run, and an environment it starts with.

Formats: U-Boot 2023.01, include/image.h (legacy image) and env/common.c.  tests/image/test_boot_script.py holds both against
mkimage and mkenvimage where those are installed.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

MAGIC = 0x27051956
LINUX, ARM64, SCRIPT, PLAIN = 5, 22, 6, 0


def script(text: str, name: str, epoch: int = 0) -> bytes:
    """`text` as `mkimage -A arm64 -T script -C none -n NAME` packs it; `epoch` stands in its header."""
    words = text.encode("ascii")
    data = struct.pack(">II", len(words), 0) + words

    def header(check: int) -> bytes:
        return struct.pack(">7I4B32s", MAGIC, check, epoch, len(data), 0, 0, zlib.crc32(data),
                           LINUX, ARM64, SCRIPT, PLAIN, name.encode("ascii"))
    return header(zlib.crc32(header(0))) + data


def environment(words: Mapping[str, str], size: int) -> bytes:
    """One environment of `size` bytes, checksum first, as `mkenvimage -s SIZE -p 0` writes it.

    Raises ValueError when it is full.
    """
    body = b"".join(f"{key}={value}\0".encode("ascii") for key, value in words.items()) + b"\0"
    if len(body) > size - 4:
        raise ValueError(f"an environment of {size} bytes cannot hold {len(body)}")
    body = body.ljust(size - 4, b"\0")
    return struct.pack("<I", zlib.crc32(body)) + body


def checksum(data: bytes) -> str:
    """What `image_crc` and `initrd_crc` of slot.env hold: crc32 in eight digits, once as it is and once with its bytes turned.

    `crc32` leaves it in memory the one way in Debian's rpi_arm64 and the other way in qemu_arm64; boot.cmd takes either.
    """
    found = zlib.crc32(data)
    return f"{found:08x} {int.from_bytes(found.to_bytes(4, 'big'), 'little'):08x}"
