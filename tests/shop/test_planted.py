"""Each planted payment bug is found by those who are said to find it: a finder that has found nothing proves nothing."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import tests.planted
from sim.routes import Fault, Script, play
from sim.search import TABLES, Search
from sim.world import FAULT_SETS, World
from tests.planted import FOUND_BY


def plant(name: str, monkeypatch) -> None:
    importlib.import_module(f"tests.planted.{name}").plant(monkeypatch.setattr)


def test_every_planted_bug_has_somebody_who_finds_it():
    assert set(FOUND_BY) == {m.name for m in pkgutil.iter_modules(tests.planted.__path__)} and all(FOUND_BY.values())
    assert len(FOUND_BY) >= 20


@pytest.mark.parametrize("name", [name for name, by in FOUND_BY.items() if "search" in by])
def test_the_search_finds_it(name, monkeypatch):
    plant(name, monkeypatch)
    assert "breach" in Search(TABLES[FOUND_BY[name]["search"]]).run(8)


@pytest.mark.parametrize("name", ["", *(name for name, by in FOUND_BY.items() if "hours" in by)])
def test_an_hour_with_a_liar_finds_it(name, monkeypatch):
    if name:
        plant(name, monkeypatch)
    liar = Fault("wechat", 0, 60, share=0.5, kind="lying", calls="all")
    told = play(Script(("wechat",), hours=0.2, every_s=30, fault=(liar,)), routed=True, faulty=True)
    assert told["struck"] > 5 and (told["channel_fen"] == told["books_fen"]) is not bool(name)


@pytest.mark.parametrize("name", [name for name, by in FOUND_BY.items() if "world" in by])
def test_the_world_finds_it(name, tmp_path, monkeypatch):
    plant(name, monkeypatch)
    for seed in range(1, 9):
        (tmp_path / str(seed)).mkdir()
        try:
            if World(seed, 60, FAULT_SETS["ci"], tmp_path / str(seed), first=True).run()["breaches"]:
                return
        except (AssertionError, KeyError):            # the box itself refused to go on
            return
    pytest.fail(f"{name} was never seen")
