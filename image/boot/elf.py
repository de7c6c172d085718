"""What a program needs beside itself: the libraries its ELF header names, and the loader that starts it.

64-bit little-endian alone, which is what arm64 is; enough of the format to copy a program into an initrd.
"""

from __future__ import annotations

import struct

PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
DT_NULL, DT_NEEDED, DT_STRTAB = 0, 1, 5


def needed(data: bytes) -> tuple[str, ...]:
    """Library names (`libc.so.6`) and the loader's path, in the header's order.  Raises ValueError when it is no such file."""
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file")
    start, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    headers = [struct.unpack_from("<IIQQQQ", data, start + size * index) for index in range(count)]
    found: list[str] = []
    for kind, _, offset, _, _, length in headers:
        if kind == PT_INTERP:
            found.append(data[offset:offset + length].rstrip(b"\0").decode())
        if kind == PT_DYNAMIC:
            tags = list(struct.iter_unpack("<qQ", data[offset:offset + length // 16 * 16]))
            tags = tags[:[tag for tag, _ in tags].index(DT_NULL)]
            strings = _in_file(headers, next((value for tag, value in tags if tag == DT_STRTAB), 0))
            found += [data[strings + value:data.index(b"\0", strings + value)].decode() for tag, value in tags if tag == DT_NEEDED]
    return tuple(found)


def _in_file(headers: list[tuple[int, ...]], address: int) -> int:
    for kind, _, offset, at, _, length in headers:
        if kind == PT_LOAD and at <= address < at + length:
            return offset + address - at
    raise ValueError(f"address {address:#x} lies in no part of the file")
