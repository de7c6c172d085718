"""The way from one text file to another in few bytes, line by line: what a price book's change costs on the line.

A delta begins with the line `till-delta 1`; then instructions, each a line: `=N` takes the next N lines of the old file, `-N`
leaves N of them out, `+B` takes the B bytes that follow it.  The old file is used up exactly.  A line ends with its newline; what
follows the last one is a line, too.  Knows bytes only: whether the result is the right one says its digest.
"""

from __future__ import annotations

import bisect
import re
from collections import Counter

HEAD = b"till-delta 1\n"
_STEP = re.compile(rb"([=+-])([1-9][0-9]{0,8})\n")
_LINE = re.compile(rb"[^\n]*\n|[^\n]+")


def delta_made(old: bytes, new: bytes) -> bytes:
    """What makes `new` of `old`.  Lines that stand once in each and keep their order are taken over: not the shortest delta of
    every two files, but a short one of two price books, in n log n."""
    before, after = _LINE.findall(old), _LINE.findall(new)
    out, at, fresh, run = [HEAD], 0, bytearray(), 0

    def step(sign: bytes, count: int) -> None:
        if count:
            out.append(b"%b%d\n" % (sign, count))

    for line, place in zip(after, _kept(before, after), strict=True):
        if place == at + run and not fresh and place >= 0:
            run += 1
            continue
        step(b"=", run)
        at, run = at + run, 0
        if place < 0:
            fresh += line
            continue
        step(b"-", place - at)
        if fresh:
            step(b"+", len(fresh))
            out.append(bytes(fresh))
            fresh.clear()
        at, run = place, 1
    step(b"=", run)
    step(b"-", len(before) - at - run)
    if fresh:
        step(b"+", len(fresh))
        out.append(bytes(fresh))
    return b"".join(out)


def delta_applied(old: bytes, delta: bytes, bytes_max: int) -> bytes:
    """The new file.  ValueError, one sentence, for a delta that is none, is none of `old`, or makes more than `bytes_max`."""
    if not delta.startswith(HEAD):
        raise ValueError("it is no delta")
    lines = _LINE.findall(old)
    out: list[bytes] = []
    size, at, here = 0, 0, len(HEAD)
    while here < len(delta):
        match = _STEP.match(delta, here)
        if match is None:
            raise ValueError(f"the delta cannot be read at byte {here}")
        sign, count, here = match[1], int(match[2]), match.end()
        if sign == b"+":
            piece = delta[here:here + count]
            if len(piece) < count:
                raise ValueError("the delta is cut")
            here += count
        else:
            if at + count > len(lines):
                raise ValueError("the delta belongs to a longer file")
            piece = b"".join(lines[at:at + count]) if sign == b"=" else b""
            at += count
        size += len(piece)
        if size > bytes_max:
            raise ValueError(f"the delta makes more than {bytes_max} bytes")
        out.append(piece)
    if at != len(lines):
        raise ValueError("the delta belongs to a shorter file")
    return b"".join(out)


def _kept(before: list[bytes], after: list[bytes]) -> list[int]:
    """For each line of `after` its place in `before`, rising, or -1: the longest rising run over lines that stand once in each."""
    once = {line for line, n in Counter(before).items() if n == 1} & {line for line, n in Counter(after).items() if n == 1}
    where = {line: n for n, line in enumerate(before) if line in once}
    tails: list[int] = []                             # smallest last place of a run of each length
    ends: list[int] = []                              # and which line of `after` that is
    came: dict[int, int] = {}
    for n, line in enumerate(after):
        if line not in once:
            continue
        k = bisect.bisect_left(tails, where[line])
        if k:
            came[n] = ends[k - 1]
        tails[k:k + 1], ends[k:k + 1] = [where[line]], [n]
    kept = [-1] * len(after)
    n = ends[-1] if ends else -1
    while n >= 0:
        kept[n] = where[after[n]]
        n = came.get(n, -1)
    return kept
