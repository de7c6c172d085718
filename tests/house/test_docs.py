"""The drawn pages are what the code says today, and every link in the docs leads somewhere."""

from __future__ import annotations

import re

import pytest

from docs import draw
from tests import ROOT

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMING: set[str] = set()               # linked before it is there; a name leaves this set when its file is committed


def test_architecture_is_drawn_from_the_code() -> None:
    assert draw.PAGE.read_text(encoding="utf-8") == draw.page(), "run: make docs"


def test_the_drawing_follows_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that never changes would pass the test above for ever."""
    moves, ignored = draw.machine_tables()  # type: ignore[misc]
    fewer = dict(list(moves.items())[1:])
    monkeypatch.setattr(draw, "machine_tables", lambda: (fewer, ignored))
    assert draw.page() != draw.PAGE.read_text(encoding="utf-8") and "| hole |" in draw.page()


def test_the_page_shows_no_hole() -> None:
    assert not re.search(r"\| hole\b", draw.page())


def test_the_page_names_what_a_move_writes() -> None:
    moves, _ = draw.machine_tables()  # type: ignore[misc]
    book = next(move for (phase, said), move in moves.items() if (phase.name, said.name) == ("AWAITING", "PAID"))
    assert {"PaymentConfirmed", "SaleClosed", "ReceiptDue", "RecordDue"} <= set(draw.facts_named(book))


def test_links_lead_somewhere() -> None:
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" in target:
                continue
            path = (page.parent / target).resolve()
            if not path.exists() and path.relative_to(ROOT).as_posix() not in COMING:
                broken.append(f"{page.name}: {target}")
    assert broken == []
