"""docs/asyncapi.yaml is what the code says, what the table of topics says, and what a real counter says on the line."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import jsonschema
import pytest
import yaml

from device.mqtt import topics
from docs import asyncapi
from sim.counter.counter import Counter
from tests.shop.test_away import until

DOCUMENT: dict[str, Any] = yaml.safe_load(asyncapi.PAGE.read_text(encoding="utf-8"))
SPOILT = {"up": b"no header", "ack": b"a.b.c", "hello": b"{}", "status": b'{"state":"asleep","connect":1}', "open": b"[1]"}


def message_of(topic: str) -> dict[str, Any]:
    """The one message of the document that may stand under `topic`."""
    found = [channel for channel in DOCUMENT["channels"].values()
             if re.fullmatch(re.sub(r"{\w+}", "[^/_][^/]*", channel["address"]), topic)]
    assert len(found) == 1, (topic, len(found))
    (message,) = found[0]["messages"].values()
    return DOCUMENT["components"]["messages"][message["$ref"].rpartition("/")[2]]


def checked(message: dict[str, Any], payload: bytes) -> None:
    """Raises when the payload is not what the document says of it."""
    if message["contentType"] == "application/jose":
        head, body, _ = payload.decode().split(".")
        typ = json.loads(_unb64(head))["typ"]
        assert f"`{typ}`" in message["description"], typ
        payload = _unb64(body)
    elif message["contentType"] == "application/octet-stream":
        first, _, rest = payload.partition(b"\n")
        payload = rest if message["name"].startswith("_enrol/") else first          # below the line with the proof
    schema = message["payload"] | {"components": DOCUMENT["components"]}
    jsonschema.validate(json.loads(payload), schema)


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_the_document_is_the_codes_own():
    assert asyncapi.PAGE.read_text(encoding="utf-8") == asyncapi.text(), "run: make docs"


def test_it_has_the_topics_of_the_table_and_no_other():
    told = {(channel["address"], operation["title"], *operation["bindings"]["mqtt"].values())
            for operation in DOCUMENT["operations"].values()
            for channel in [DOCUMENT["channels"][operation["channel"]["$ref"].rpartition("/")[2]]]}
    under = {"box": "tb1/{tenant}/{box}/", "tenant": "tb1/{tenant}/", "enrol": "tb1/"}
    assert told == {(under[t.under] + t.name, f"{t.sender} to {t.reader}", t.qos, t.retain) for t in topics.TOPICS}
    assert set(asyncapi.MESSAGES) == {t.name for t in topics.TOPICS} == set(topics.BY_NAME)


def test_every_schema_is_one():
    for message in DOCUMENT["components"]["messages"].values():
        if "payload" in message:
            jsonschema.Draft202012Validator.check_schema(message["payload"] | {"components": DOCUMENT["components"]})


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    """Every message of a counter that sold once, as (topic, payload)."""
    folder = tmp_path_factory.mktemp("counter")
    counter = Counter(folder, profile="gateway", record=True)
    counter.start()
    try:
        counter.scan("6902538004045")
        counter.key("PAY")
        until(lambda: counter.state()["phase"] == "AWAITING", "a QR is shown")
        counter.phone_scan("wechat", None, "pay")
        until(lambda: bool(counter.cloud_records()["tokens"]) and counter.quiet(), "the record is there")
    finally:
        counter.stop()
    lines = map(json.loads, (folder / "payloads.jsonl").read_text().splitlines())
    return [(line["topic"], bytes.fromhex(line["payload"])) for line in lines]


def test_what_a_counter_says_is_what_the_document_says(heard):
    for topic, payload in heard:
        checked(message_of(topic), payload)
    said = {topic.split("/", 3)[3] for topic, _ in heard if "/_" not in topic}
    assert {"up", "ack", "hello", "status", "open"} <= said and any("/_collector/" in topic for topic, _ in heard)
    assert {topic.rpartition("/")[2] for topic, _ in heard if "/_enrol/" in topic} == {"ask", "answer"}


@pytest.mark.parametrize("name", SPOILT)
def test_something_else_is_noticed(name):
    with pytest.raises((ValueError, AssertionError, jsonschema.ValidationError)):
        checked(message_of(f"tb1/shop/box-1/{name}"), SPOILT[name])
    with pytest.raises(AssertionError):
        message_of(f"tb1/shop/box-1/{name}s")
