"""The collector at its trade: batches of 50 from a real broker into a real PostgreSQL, and every single signature afterwards.

Both ends of a ratio are measured in one run, in turns; the ratio is the median of the pairs'.  The floor of the first is a bare
program that takes the same messages from the same broker, inflates them and copies the lines into a table with the same key, one
commit for as many messages as the collector takes together, confirming them after it; it looks at nothing.  The floor of the second
is the library's verify on one core, the same key and records, both by processor time: what a core does for a record, whoever else
uses it just now.  The messages wait in the broker before the clock starts.
"""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from device.mqtt import topics, wire
from device.mqtt.wire import Batch
from device.store_forward.es256 import public_verifier
from device.store_forward.token import EMPTY_DIGEST, Parsed, digest, parse, seal, signing_input
from fleet.keys import SigningKey
from fleet.records.checking import check_all
from fleet.records.store import Store, sums
from sim.broker import Broker
from sim.postgres import Postgres

BOXES, BATCHES, TOGETHER = 15, 60, 16
ROUNDS, CHECK_ROUNDS = 5, 15
CHECKED = 3_000
DOOR_RATIO_MIN, CHECK_RATIO_MIN = 0.6, 0.8
AT = "2026-09-01T08:00:00+08:00"
RECORDS = BOXES * BATCHES * wire.RECORDS_MAX


def rows() -> Iterator[dict[str, Any]]:
    """Rows `{"name","value","unit","floor","ratio","goal","holds"}`."""
    with tempfile.TemporaryDirectory() as folder, Postgres(durable=True) as server, Broker(Path(folder) / "broker") as broker:
        key = SigningKey(Path(folder) / "record.pem")
        (Path(folder) / "keys.jwks").write_text(key.jwks())
        chains = [_chain(key, f"box-{n}") for n in range(BOXES)]
        messages = [(topics.up("shop", f"box-{n}"), wire.batch_encoded(batch, "zlib")) for batches in zip(*chains, strict=True)
                    for n, batch in enumerate(batches)]
        ours, bare = [], []
        for _ in range(ROUNDS):
            bare.append(_drained(server, broker, folder, messages, ours=False))
            ours.append(_drained(server, broker, folder, messages, ours=True))
        yield _row("collect.postgresql_batches_of_50", ours, bare, DOOR_RATIO_MIN)
        tokens = [token for batch in chains[0] for token in batch.tokens][:CHECKED]
        verified, checked = [], []
        for _ in range(CHECK_ROUNDS):
            verified.append(_verified(key, [parse(token) for token in tokens]))
            checked.append(_checked(server, key, chains[0]))
        yield _row("collect.every_signature", checked, verified, CHECK_RATIO_MIN)


def _row(name: str, values: list[float], floors: list[float], goal: float) -> dict[str, Any]:
    """Medians; the ratio is that of the pairs, each measured within a second or two: a machine's pace drifts over a run."""
    ratio = statistics.median(value / floor for value, floor in zip(values, floors, strict=True))
    return {"name": name, "value": round(statistics.median(values)), "unit": "records/s",
            "floor": round(statistics.median(floors)), "ratio": round(ratio, 2), "goal": goal, "holds": ratio >= goal}


def _chain(key: SigningKey, box: str) -> list[Batch]:
    """Batches of sales of five items each, as a box writes them."""
    jid, prev, sales_fen, out = box.replace("-", "_").ljust(21, "j") + "A", EMPTY_DIGEST, 0, []
    for first in range(1, BATCHES * wire.RECORDS_MAX + 1, wire.RECORDS_MAX):
        tokens = []
        for seq in range(first, first + wire.RECORDS_MAX):
            lines = [{"gtin": f"69025380040{n}", "name": "Mizone lime 600ml", "qty_milli": 1000, "price_fen": 500,
                      "amount_fen": 500} for n in range(2)]
            sales_fen += 1000
            order = f"{seq:020d}"
            body = {"order_no": order, "amount_fen": 1000, "cashier": "01", "lines": lines,
                    "tenders": [{"method": "wechat", "amount_fen": 1000, "order_no": order, "channel_no": f"42000{seq:020d}"}]}
            payload = {"v": 1, "box": box, "jid": jid, "seq": seq, "prev": prev, "at": AT, "clk": "ntp", "boot": "b1",
                       "mono_ms": seq, "kind": "sale", "body": body}
            payload["sum"] = {"sales_fen": sales_fen, "refunds_fen": 0, "count": seq}
            payload["body"] = payload.pop("body")
            signing = signing_input(key.kid, json.dumps(payload, separators=(",", ":")).encode())
            tokens.append(seal(signing, key.sign(signing)))
            prev = digest(tokens[-1])
        out.append(Batch(jid, first, first + len(tokens) - 1, prev, tuple(tokens)))
    return out


# The way in --------------------------------------------------------------------------------------------------------

def _drained(server: Postgres, broker: Broker, folder: str, messages: list[tuple[str, bytes]], *, ours: bool) -> float:
    """Records a second from the broker's queue into the database."""
    import psycopg

    where = server.database()
    if ours:
        argv = ["-m", "fleet", "collect", "--broker", f"127.0.0.1:{broker.port}", "--tenant", "shop", "--store", where, "--keys",
                f"{folder}/keys.jwks", "--ack-key", f"{folder}/ack.pem", "--no-check"]
    else:
        argv = ["-m", "bench.collect", str(broker.port), where]
    process = subprocess.Popen([sys.executable, *argv], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with psycopg.connect(where, autocommit=True) as db:
        try:
            _awaited(broker.port)
            process.send_signal(signal.SIGSTOP)
            _published(broker.port, messages)
            began_s = time.perf_counter()
            process.send_signal(signal.SIGCONT)
            table = "(SELECT sum(upto) FROM guard)" if ours else "(SELECT sum(n) FROM done)"
            while (db.execute(f"SELECT coalesce({table}, 0)::bigint").fetchone() or (0,))[0] < RECORDS:
                if process.poll() is not None or time.perf_counter() > began_s + 120:
                    raise RuntimeError("the records did not arrive")
                time.sleep(0.01)
            return RECORDS / (time.perf_counter() - began_s)
        finally:
            process.kill()
            process.communicate()


def _awaited(port: int) -> None:
    """Until a collector of the tenant has subscribed: it says so on its retained topic."""
    from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5

    told: list[bytes | bytearray] = []
    client = Client(CallbackAPIVersion.VERSION2, client_id="bench-waits", protocol=MQTTv5)
    client.on_connect = lambda c, *_: c.subscribe(topics.collectors_of("shop"), 1)
    client.on_message = lambda _c, _u, m: told.append(m.payload)
    client.connect("127.0.0.1", port)
    client.loop_start()
    until_s = time.monotonic() + 20
    while not any(wire.status_decoded(bytes(raw)).state == "up" for raw in told[-1:]):
        if time.monotonic() > until_s:
            raise RuntimeError("no collector came up")
        time.sleep(0.01)
    client.disconnect()
    client.loop_stop()


def _published(port: int, messages: list[tuple[str, bytes]]) -> None:
    """All of them are with the broker when this returns."""
    from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5

    client = Client(CallbackAPIVersion.VERSION2, client_id="bench-sends", protocol=MQTTv5)
    client.max_inflight_messages_set(100)
    client.connect("127.0.0.1", port)
    client.loop_start()
    for info in [client.publish(topic, payload, qos=1) for topic, payload in messages]:
        info.wait_for_publish(60)
    client.disconnect()
    client.loop_stop()


def bare(port: int, where: str) -> None:
    """The floor: messages to lines, lines to COPY, commit, confirm."""
    import queue
    import zlib

    import psycopg
    from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    came: queue.Queue[Any] = queue.Queue()
    state = topics.collector_state("shop", "bare")
    client = Client(CallbackAPIVersion.VERSION2, client_id="bench-bare", protocol=MQTTv5, manual_ack=True)
    client.will_set(state, wire.encoded(wire.Status("down", 1, "")), qos=1, retain=True)
    client.on_connect = lambda c, *_: c.subscribe(topics.shared("shop", "up"), 1)
    client.on_subscribe = lambda c, *_: c.publish(state, wire.encoded(wire.Status("up", 1, "")), qos=1, retain=True)
    client.on_message = lambda _c, _u, m: came.put(m)
    properties = Properties(PacketTypes.CONNECT)
    properties.ReceiveMaximum = 64
    with psycopg.connect(where) as db:
        db.execute("CREATE TABLE record (box text, jid text, seq bigint, token text, PRIMARY KEY (box, jid, seq))")
        db.execute("CREATE TABLE done (n bigint)")
        db.commit()
        client.connect("127.0.0.1", port, properties=properties)
        client.loop_start()
        while True:
            together = [came.get()]
            while len(together) < TOGETHER and not came.empty():
                together.append(came.get())
            lines = []
            for message in together:
                head, _, body = message.payload.partition(b"\n")
                header = json.loads(head)
                jid, seq, box = header["jid"], header["first"], message.topic.split("/")[2]
                for n, token in enumerate(zlib.decompress(body).decode().splitlines()):
                    lines.append(f"{box}\t{jid}\t{seq + n}\t{token}\n")
            with db.cursor() as cursor:
                with cursor.copy("COPY record FROM STDIN") as copy:
                    copy.write("".join(lines))
                cursor.execute("INSERT INTO done VALUES (%s)", (len(lines),))
            db.commit()
            for message in together:
                client.ack(message.mid, message.qos)


# Every single signature --------------------------------------------------------------------------------------------

def _verified(key: SigningKey, records: list[Parsed]) -> float:
    """Signatures a second by the library alone, one thread, the input ready."""
    verify = public_verifier(key.jwk)
    began_s = time.process_time()
    for record in records:
        assert verify(record.signing_input, record.signature)
    return len(records) / (time.process_time() - began_s)


def _checked(server: Postgres, key: SigningKey, batches: list[Batch]) -> float:
    """Records a second of this program's processor time, all its threads', from the database to what counts."""
    store = Store(server.database(), [key.jwk])
    for batch in batches:
        with store.transaction():
            store.take("box-0", batch, AT)
    began_s = time.process_time()
    checked = check_all(store, AT)
    taken_s = time.process_time() - began_s
    assert checked == sums(store)["count"] == BATCHES * wire.RECORDS_MAX
    store.close()
    return checked / taken_s


if __name__ == "__main__":
    bare(int(sys.argv[1]), sys.argv[2])
