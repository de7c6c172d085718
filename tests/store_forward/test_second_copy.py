"""The second copy alone: what comes back, what a torn or rotten page takes, what is let go, and what may never be."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from device.errors import CopyFailed, Outside
from device.store_forward.second_copy import Copied, Held, SecondCopy, Stand

SMALL = 8 * 1024
NO = ("", 0, "")


def row(n: int, *, mark: int = 0, restates: bool = False, size: int = 200) -> Copied:
    noise = random.Random(n).randbytes(size)             # rows that deflate cannot make small
    return Copied(n, mark or n, (f"O{n}",) if n % 3 else (), noise, restates, Stand(f"head-{n}", 100 + n, 7))


def copy_at(folder: Path, **given: int) -> SecondCopy:
    return SecondCopy(folder, **{"segment_bytes": SMALL, **given})


def begun(folder: Path, upto: int = 0) -> SecondCopy:
    copy = copy_at(folder)
    copy.begin([row(n) for n in range(1, upto + 1)], NO)
    return copy


def reread(folder: Path) -> Held:
    copy = copy_at(folder)
    held = copy.read()
    copy.close()
    return held


def told(held: Held) -> list[tuple[int, int, tuple[str, ...], bytes]]:
    return [(r.n, r.mark, r.refs, r.facts) for r in held.rows]


def plain(first: int, last: int) -> list[tuple[int, int, tuple[str, ...], bytes]]:
    return [tuple(row(n))[:4] for n in range(first, last + 1)]


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("copy-*.seg"))


def test_rows_come_back_with_their_marks_numbers_and_counters(tmp_path):
    copy = begun(tmp_path)
    copy.keep([row(1), row(2)])
    copy.keep([row(3)], ("J", 2, "head-2"), 2)
    copy.close()
    held = reread(tmp_path)
    assert told(held) == plain(1, 3)
    assert (held.stand, held.top, held.acked) == (Stand("head-3", 103, 7), 3, ("J", 2, "head-2"))
    assert not held.broken and not held.ragged


def test_it_goes_on_where_it_stood_also_over_the_end_of_a_segment(tmp_path):
    copy = begun(tmp_path)
    for n in range(1, 31):
        copy.keep([row(n)])
    copy.close()
    again = copy_at(tmp_path)
    again.go_on(again.read())
    for n in range(31, 121):
        again.keep([row(n)])
    again.close()
    assert told(reread(tmp_path)) == plain(1, 120)
    assert len(segments(tmp_path)) > 2
    assert {path.stat().st_size for path in segments(tmp_path)} == {SMALL}


def test_a_row_larger_than_a_segment_has_its_own(tmp_path):
    copy = begun(tmp_path)
    copy.keep([row(1), row(2, size=5 * SMALL), row(3)])
    copy.close()
    assert [r.n for r in reread(tmp_path).rows] == [1, 2, 3]


def test_a_keep_writes_over_bytes_that_are_there_and_syncs_once(tmp_path, monkeypatch):
    copy = begun(tmp_path)
    done: list[str] = []
    for name in ("pwrite", "fdatasync", "fsync", "rename", "open"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, real=real, **k: (done.append(name), real(*a, **k))[1])
    copy.keep([row(1), row(2)], ("J", 1, "h"), 1)
    assert done == ["pwrite", "fdatasync"]
    copy.close()


def test_a_restating_row_begins_a_segment_and_frees_what_the_cloud_has(tmp_path):
    copy = begun(tmp_path)
    n = 0
    for _ in range(12):
        for _ in range(20):
            n += 1
            copy.keep([row(n)], ("J", n, f"head-{n}"), n)
        n += 1
        copy.keep([row(n, restates=True)], None, n - 1)
    copy.close()
    held = reread(tmp_path)
    assert [r.n for r in held.rows] == [n] and held.rows[0].restates
    assert [r.n for r in held.older][-1:] == [n - 1]
    assert len(segments(tmp_path)) <= 5                  # this generation, the one before it, and those waiting to be used again


def test_records_that_the_cloud_has_not_are_held_up_to_the_bound(tmp_path):
    copy = SecondCopy(tmp_path, segment_bytes=SMALL, bytes_max=20 * SMALL)
    copy.begin([], NO)
    for n in range(1, 1001):
        copy.keep([row(n, restates=n % 20 == 0)], None, 0)
        if n == 200:
            assert len(segments(tmp_path)) >= 10
    copy.close()
    held = reread(tmp_path)
    first = next(iter(held.older)).n
    assert [r.n for r in (*held.older, *held.rows)] == list(range(first, 1001))
    assert 200 < 1000 - first < 500
    assert len(segments(tmp_path)) <= 24


def test_a_torn_tail_is_dropped_and_written_over(tmp_path):
    copy = begun(tmp_path)
    for n in range(1, 11):
        copy.keep([row(n)])
    end = copy._end
    copy.close()
    path = segments(tmp_path)[0]
    with path.open("r+b") as file:
        file.seek(end - 30)
        file.write(bytes(30))
    held = reread(tmp_path)
    assert told(held) == plain(1, 9) and held.ragged and not held.broken
    again = copy_at(tmp_path)
    again.go_on(held)
    again.keep([row(10)])
    again.keep([row(11)])
    again.close()
    assert told(reread(tmp_path)) == plain(1, 11) and not reread(tmp_path).ragged


@pytest.mark.parametrize("page", range(0, 3))
def test_a_rotten_page_in_the_middle_is_known_and_its_numbers_still_say_how_far_it_went(tmp_path, page):
    copy = SecondCopy(tmp_path, segment_bytes=64 * 1024)
    copy.begin([], NO)
    for n in range(1, 151):
        copy.keep([row(n)])
    assert copy._end > 49_152
    copy.close()
    with segments(tmp_path)[0].open("r+b") as file:
        file.seek(page * 16_384)
        file.write(random.Random(page).randbytes(16_384))
    held = reread(tmp_path)
    assert held.broken and held.top == 150 and held.stand == Stand("head-150", 250, 7)
    assert told(held) == plain(1, held.last) and held.last < 150


def test_what_an_older_use_of_a_segment_left_is_not_heard(tmp_path):
    copy = begun(tmp_path)
    for n in range(1, 200):
        copy.keep([row(n, restates=n % 10 == 0)], None, n - 1)
    copy.close()
    held = reread(tmp_path)
    assert not held.broken and held.top == 199 and held.last == 199
    assert len(segments(tmp_path)) <= 5                  # so they were used again


def test_laid_anew_the_older_copy_lies_beside_it(tmp_path):
    copy = begun(tmp_path, 5)
    copy.close()
    again = copy_at(tmp_path)
    lineage = again.begin([row(8, restates=True)], ("J", 3, "h"))
    assert len(segments(tmp_path)) == 2                  # until the journal knows the new one
    again.forget()
    again.close()
    held = reread(tmp_path)
    assert (held.lineage, [r.n for r in held.rows], held.acked) == (lineage, [8], ("J", 3, "h"))
    assert len(list((tmp_path / "was-1").iterdir())) == 1


def test_a_copy_is_one_process_own_and_an_error_is_final(tmp_path, monkeypatch):
    copy = begun(tmp_path)
    with pytest.raises(Outside, match="held by another process"):
        copy_at(tmp_path)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", full)
    with pytest.raises(CopyFailed, match="No space left"):
        copy.keep([row(1)])
    monkeypatch.undo()
    with pytest.raises(AssertionError):
        copy.keep([row(1)])
    copy.close()
