"""A dead box's journal comes in by the collector's door: once, however often it is brought, and a fork by its name."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleet.__main__ import main
from fleet.records.bring_in import brought_in
from fleet.records.proof import defects
from fleet.records.store import Store, records
from tests.record_chain import Chain, Key

KEY = Key()
AT = "2026-07-14T09:26:53+08:00"


@pytest.fixture
def store(place: Callable[[], str]) -> Iterator[Store]:
    one = Store(place(), [KEY.jwk])
    yield one
    one.close()


def counts(store: Store, lines: list[str]) -> tuple[int, int, int, str]:
    (told,) = brought_in(store, lines, AT)
    assert told.records == told.new + told.known + told.refused
    return told.new, told.known, told.refused, told.verdict


def test_what_the_cloud_lacks_is_new_the_rest_known_and_twice_is_nothing(store: Store) -> None:
    chain = Chain(KEY).grow(130)
    assert counts(store, chain.tokens[:70]) == (70, 0, 0, "ok")
    assert counts(store, chain.tokens) == (60, 70, 0, "ok")
    assert counts(store, chain.tokens) == (0, 130, 0, "ok")
    assert records(store)["tokens"] == chain.tokens and defects(store) == []


def test_a_trimmed_journal_goes_on_where_the_cloud_stands(store: Store) -> None:
    chain = Chain(KEY).grow(90)
    brought_in(store, chain.tokens[:60], AT)
    assert counts(store, chain.tokens[40:]) == (30, 20, 0, "ok")
    assert records(store)["tokens"] == chain.tokens


def test_records_missing_in_between_are_named_and_the_rest_is_kept(store: Store) -> None:
    chain = Chain(KEY).grow(60)
    (told,) = brought_in(store, chain.tokens[:20] + chain.tokens[30:], AT)
    assert (told.new, told.upto, told.verdict) == (50, 20, "gap") and "21 to 30" in told.why
    assert counts(store, chain.tokens[20:30]) == (10, 0, 0, "ok")
    assert records(store)["tokens"] == chain.tokens


def test_another_branch_is_a_fork_and_overwrites_nothing(store: Store) -> None:
    chain, clone = Chain(KEY).grow(30), Chain(KEY)
    clone.tokens, clone.sum = list(chain.tokens[:20]), {"sales_fen": 2000, "refunds_fen": 0, "count": 20}
    clone.add("sale", {"order_no": "OTHER", "amount_fen": 9})
    clone.grow(4)
    brought_in(store, chain.tokens, AT)
    (told,) = brought_in(store, clone.tokens, AT)
    assert told.verdict == "fork" and (told.known, told.refused, told.new) == (20, 5, 0)
    assert "record 21" in told.why and records(store)["tokens"] == chain.tokens


def test_a_forged_record_is_refused_and_its_neighbours_are_taken(store: Store) -> None:
    chain = Chain(KEY).grow(12)
    stranger = Chain(Key()).grow(12)
    (told,) = brought_in(store, chain.tokens[:11] + stranger.tokens[11:], AT)
    assert (told.new, told.refused, told.verdict) == (11, 1, "unreadable") and "record 12" in told.why
    assert records(store)["tokens"] == chain.tokens[:11]


def test_lines_that_are_no_tokens_are_named_and_harm_nobody(store: Store) -> None:
    chain = Chain(KEY).grow(5)
    told = brought_in(store, ["nonsense\n", *chain.tokens, "\n", "a.b.c\n"], AT)
    assert [(r.jid, r.new, r.refused, r.verdict) for r in told] == [("", 0, 2, "unreadable"), (chain.jid, 5, 0, "ok")]
    assert "line 1" in told[0].why


def test_any_order_ends_the_same(store: Store) -> None:
    chain, rng = Chain(KEY).grow(200), random.Random(4)
    parts = [chain.tokens[n:n + 20] for n in range(0, 200, 20)]
    rng.shuffle(parts)
    brought_in(store, [token for part in parts for token in part], AT)
    assert records(store)["tokens"] == chain.tokens


def test_the_command_reads_a_file_or_standard_input(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    chain = Chain(KEY).grow(8)
    (tmp_path / "keys.jwks").write_text(json.dumps({"keys": [KEY.jwk]}))
    (tmp_path / "dead.txt").write_text("\n".join(chain.tokens) + "\n")
    more = ["--store", str(tmp_path / "store.db"), "--keys", str(tmp_path / "keys.jwks"), "--json"]
    assert main(["collect", str(tmp_path / "dead.txt"), *more]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {
        "records": 8, "new": 8, "known": 0, "refused": 0, "journals": 1, "whole": True}
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join([*chain.tokens, "x.y.z"])))
    assert main(["collect", "-", *more]) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["refused"] == 1
    assert main(["collect", *more]) == 2 and "--broker" in capsys.readouterr().err
