"""200 configurations that no box may take; `python -m tests.config_attacks` throws a thousand."""

from __future__ import annotations

from pathlib import Path

from tests.config_attacks import ATTACKS, played


def test_none_is_taken_and_none_holds_the_box_up(tmp_path: Path):
    told = played(7, 200, tmp_path)
    assert told["accepted"] == []
    assert told["takes_a_good_one_still"] and told["kinds"] == len(ATTACKS)
    assert told["slowest_ms"] < 500
