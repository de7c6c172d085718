"""Where a store may stand: the same test on SQLite and on a real PostgreSQL, one server for all, a fresh database
each.  A machine without one fails: half of what is said here would not be shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sim.postgres import Postgres

AT = "2026-07-14T09:26:53+08:00"         # the day at which the tests' collectors live


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    from fleet.records.store import Store

    server = Postgres()
    try:
        server.start()
        server.say("CREATE DATABASE template_store")
        made = Store(server.address("template_store"))       # made once and copied: 50 tables take their time
        made.ready_for(AT)
        made.close()
        yield server
    finally:
        server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Call it for the place of one more empty store."""
    if request.param == "sqlite":
        return lambda: str(tmp_path / f"store{len(list(tmp_path.glob('store*.db')))}.db")
    server = request.getfixturevalue("postgres")
    return lambda: server.database("template_store")
