"""A box that was copied, over a real Mosquitto: the cloud names the fork, and the second one goes on under a journal of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from device.store_forward.token import parse
from fleet.records.proof import defects
from fleet.records.store import Store
from sim.broker import MOSQUITTO, Broker
from tests.pushed_shop import Shop, until

pytestmark = pytest.mark.skipif(not (Path(MOSQUITTO).exists() or shutil.which("mosquitto")), reason="needs Mosquitto")


def test_a_copied_box_is_named_and_its_clone_begins_a_journal_that_names_the_old_head(tmp_path: Path) -> None:
    state, first, clone = tmp_path / "state", tmp_path / "first", tmp_path / "clone"
    with Broker(tmp_path / "broker") as broker:
        shop = Shop(tmp_path, broker)
        store = Store(tmp_path / "store.db", json.loads((tmp_path / "keys.jwks").read_text())["keys"])
        try:
            def upto() -> int:
                return store.guards()[0][2]
            shop.daemon.start()
            until(lambda: upto() >= 2 and shop.state()["unacked"] == 0)        # its start, and what time it is
            shop.daemon.stop()
            ((_, jid, common, head),) = store.guards()
            shutil.copytree(state, clone)

            shop.daemon.start()                              # the box itself: its next start is a record that the clone lacks
            until(lambda: upto() > common)
            shop.daemon.stop()
            ((_, _, _, head),) = store.guards()
            state.rename(first)
            clone.rename(state)
            shop.daemon.start()                              # the clone: another record under the same number
            until(lambda: len(store.guards()) == 2)
            (_, other, _, _), = (guard for guard in store.guards() if guard[1] != jid)
            until(lambda: store.chain("box-1", other))
            until(lambda: shop.state()["unacked"] == 0)
            assert [(at, number, name) for _, at, number, name, *_ in store.alarms()] == [(jid, common + 1, "Fork")]
            opening = parse(store.chain("box-1", other)[0]).payload
            after = json.loads(bytes(opening.body))["after"]
            assert (opening.kind, opening.seq, after["jid"], after["seq"]) == ("journal", 1, jid, common + 1)
            assert after["head"] != head, "it names the head of its own branch"
            assert (jid, head) in [(guard[1], guard[3]) for guard in store.guards()], "what the box itself said stands"
            assert {defect[2] for defect in defects(store)} == {common + 1}
        finally:
            store.close()
            shop.close()
