"""How a bundle is written: lines that pass a terminal of 80 columns and a person's copy of it whole.  Pure; knows no key.

A first line, the SHA-256 of what is packed, each JWE in lines of 76 characters with a line `.` behind it, and a last line.  What
stands before the first and after the last, such as the prompt that was copied too, is not of it.
"""

from __future__ import annotations

HEAD, LAST, OVER = "TILLBOX-BUNDLE-1", "TILLBOX-BUNDLE-END", "."
LINE_CHARS = 76


def bundled(digest: str, parts: list[str]) -> list[str]:
    """The lines of a bundle; `digest` 64 hexadecimal digits, each part one compact JWE."""
    lines = [HEAD, digest]
    for part in parts:
        lines += [part[at:at + LINE_CHARS] for at in range(0, len(part), LINE_CHARS)] + [OVER]
    return [*lines, LAST]


def unbundled(text: str) -> tuple[str, list[str]]:
    """The digest and the parts in a copy of those lines.  ValueError, one sentence, when it is none or its end is missing."""
    words = text.split()
    if HEAD not in words:
        raise ValueError("it is no bundle of a box's console")
    words = words[words.index(HEAD) + 1:]
    if LAST not in words or len(words) < 3:
        raise ValueError(f"the bundle is cut: its last line is {LAST}")
    digest, *lines = words[:words.index(LAST)]
    *parts, rest = "".join("\n" if line == OVER else line for line in lines).split("\n")
    if rest:
        raise ValueError("parts of the bundle are missing or in another order")
    return digest, parts
