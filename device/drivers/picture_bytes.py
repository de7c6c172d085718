"""How large a PNG or JPEG says it is, from its own head.  Knows bytes; decodes nothing, so nothing of it can swell."""

from __future__ import annotations

MOST_BYTES = 4 << 20
MOST_PIXELS = 4_000_000          # twelve megabytes once it is opened
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_SIZES = frozenset({0xC0, 0xC1, 0xC2})                       # SOF0, SOF1 and SOF2: what Pillow reads
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})                # markers without a length


def picture_fault(data: bytes) -> str:
    """Why `data` is no picture that a till shows, in one sentence; "" when it is one."""
    if len(data) > MOST_BYTES:
        return f"it has more than {MOST_BYTES >> 20} MiB"
    size = picture_size(data)
    if size is None:
        return "it is neither PNG nor JPEG" if not data.startswith((_PNG, _JPEG)) else "its head does not say how large it is"
    if not 16 <= min(size) or size[0] * size[1] > MOST_PIXELS:
        return f"it is {size[0]} x {size[1]} pixels; a till shows 16 x 16 to {MOST_PIXELS // 1_000_000} million of them"
    return ""


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels; None when it is no PNG and no JPEG, or does not say."""
    if data.startswith(_PNG):
        return (int.from_bytes(data[16:20]), int.from_bytes(data[20:24])) if data[12:16] == b"IHDR" and len(data) >= 24 else None
    if not data.startswith(_JPEG):
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _SIZES:
            return int.from_bytes(data[at + 7:at + 9]), int.from_bytes(data[at + 5:at + 7])
        if marker == 0xFF or marker in _BARE:
            at += 1 if marker == 0xFF else 2
            continue
        at += 2 + max(2, int.from_bytes(data[at + 2:at + 4]))
    return None
