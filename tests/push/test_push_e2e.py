"""The real daemon on a real broker under a real collector: a good configuration stays, a poisonous one goes, power cut or not."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.records.store import Store
from sim.broker import MOSQUITTO, Broker
from tests.pushed_box import blob_of, doc, price_book
from tests.pushed_shop import Shop, tale, until

pytestmark = pytest.mark.skipif(not (Path(MOSQUITTO).exists() or shutil.which("mosquitto")), reason="needs Mosquitto")


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with Broker(tmp_path / "broker") as broker:
        one = Shop(tmp_path, broker)
        try:
            yield one
        finally:
            one.close()


def test_a_poisonous_configuration_undoes_itself_and_itstale_is_in_the_chain(shop: Shop):
    with socket.socket() as nobody:                # a port that nobody listens on
        nobody.bind(("127.0.0.1", 0))
        shop.daemon.start()
        shop.await_state(0, "active")
        book = price_book(300)
        shop.push(doc(1, blobs={"prices": blob_of(book)}))
        want = shop.await_want()
        shop.blob(book, *want)
        assert shop.await_state(1, "active").active.version == 1
        shop.patience(4)
        shop.push(doc(2, {"mqtt": {"port": nobody.getsockname()[1]}}))
        until(lambda: shop.phase(2) == "trial")
        shop.daemon.cut(0.1)                       # power goes in the middle of the trial
        until(lambda: shop.phase(2) == "fallback")
        shop.patience(60)
        told = shop.await_state(2, "rolled_back")
    assert told.active.version == 1 and shop.daemon.starts >= 4
    assert shop.state()["config"]["state"] == "rolled_back"
    starts = shop.daemon.starts
    shop.push(doc(3, {"printer": {"columns": 32}, "shop_en": "Corner Shop 3"}, blobs={"prices": blob_of(book)}))
    assert shop.await_state(3, "active").active.version == 3
    assert shop.daemon.starts == starts            # words alone: a new connection, no new start
    store = Store(shop.folder / "store.db")
    try:
        until(lambda: tale(store)[-1:] == [(3, "active")])
        assert tale(store) == [(1, "trial"), (1, "active"), (2, "trial"), (2, "rolled_back"), (3, "trial"), (3, "active")]
    finally:
        store.close()
