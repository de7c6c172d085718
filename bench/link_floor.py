"""What the line costs without us: paho alone, and paho into SQLite, each in processes of their own, for bench.link.

`single PORT TOKEN_BYTES COUNT WINDOW` publishes one message a record, to PUBACK.  `pipe PORT COUNT TOKEN_BYTES FILE` publishes
batches of 50, eight under way, and `sink PORT COUNT FILE` commits them, 500 rows a transaction, before it acknowledges.  Each
prints one JSON object.
"""

from __future__ import annotations

import json
import queue
import sqlite3
import sys
import threading
import time
from typing import Any

BATCH, WINDOW, COMMIT_ROWS = 50, 8, 500
TOPIC = "bare/up"


def _client(name: str, port: int, **more: Any) -> Any:
    from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5
    client = Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=MQTTv5, **more)
    client.max_inflight_messages_set(1_000)
    ready = threading.Event()
    client.on_connect = lambda *_: ready.set()
    client.connect("127.0.0.1", port)
    client.loop_start()
    assert ready.wait(10), "the broker does not answer"
    return client


def _published(port: int, payloads: list[bytes], window: int, topic: str) -> dict[str, float]:
    client, free = _client(f"bare-{window}", port), threading.Semaphore(window)
    client.on_publish = lambda *_: free.release()
    began_s = time.monotonic()
    for payload in payloads:
        free.acquire()
        client.publish(topic, payload, qos=1)
    for _ in range(window):
        free.acquire()
    ended_s = time.monotonic()
    client.disconnect()
    client.loop_stop()
    return {"began_s": began_s, "ended_s": ended_s}


def single(port: int, token_bytes: int, count: int, window: int) -> dict[str, float]:
    return _published(port, [b"x" * token_bytes] * count, window, "bare/single")


def pipe(port: int, token_bytes: int, count: int) -> dict[str, float]:
    payload = b"\n".join([b"x" * token_bytes] * BATCH)
    return _published(port, [payload] * (count // BATCH), WINDOW, TOPIC)


def sink(port: int, count: int, path: str) -> dict[str, float]:
    from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5
    came: queue.SimpleQueue[tuple[int, int, bytes]] = queue.SimpleQueue()
    client = Client(CallbackAPIVersion.VERSION2, client_id="sink", protocol=MQTTv5, manual_ack=True)
    client.on_message = lambda _c, _u, m: came.put((m.mid, m.qos, bytes(m.payload)))
    client.on_connect = lambda c, *_: c.subscribe(TOPIC, 1)
    client.on_subscribe = lambda *_: print(json.dumps({"ready": True}), flush=True)
    client.connect("127.0.0.1", port)
    client.loop_start()
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE record (box TEXT, jid TEXT, seq INTEGER, token TEXT, PRIMARY KEY (box, jid, seq)) WITHOUT ROWID")
    seq = 0
    while seq < count:
        together, rows = [came.get()], []
        while len(together) * BATCH < COMMIT_ROWS and not came.empty():
            together.append(came.get())
        for _, _, payload in together:
            for token in payload.decode().split("\n"):
                seq += 1
                rows.append(("box-1", "j", seq, token))
        db.execute("BEGIN")
        db.executemany("INSERT INTO record VALUES (?,?,?,?) ON CONFLICT DO NOTHING", rows)
        db.execute("COMMIT")
        for mid, qos, _ in together:
            client.ack(mid, qos)
    ended_s = time.monotonic()
    client.disconnect()
    client.loop_stop()
    return {"ended_s": ended_s}


if __name__ == "__main__":
    word, *rest = sys.argv[1:]
    if word == "sink":
        print(json.dumps(sink(int(rest[0]), int(rest[1]), rest[2])), flush=True)
    elif word == "single":
        print(json.dumps(single(*map(int, rest))), flush=True)
    else:
        print(json.dumps(pipe(*map(int, rest))), flush=True)
