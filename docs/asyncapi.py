"""Writes docs/asyncapi.yaml from the table of topics and the codecs' own types: `python -m docs.asyncapi`.

Knows which type stands in which topic, and which topic is signed as what; everything else is asked of the code.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from device import __version__
from device.mqtt import ask_wire, cmd_wire, config_wire, enrol_wire, topics, update_wire, wire

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "asyncapi.yaml"
PARAMETERS = {
    "tenant": "name of the merchant, `[a-z0-9][a-z0-9-]{0,31}`", "box": "name of the box, `[a-z0-9-]{1,32}`",
    "sha256": "hex SHA-256 of the whole blob", "n": "number of the chunk, from 0", "id": "name of the collector, or of the code",
}


class Said(NamedTuple):
    """What one topic carries.  `typ`: the payload is a compact JWS of that type, whose own payload is `type`; `form` what else is
    there to say about the bytes; `type` None for bytes without JSON."""

    type: Any
    typ: str = ""
    form: str = ""
    content: str = "application/json"


MESSAGES: dict[str, Said] = {
    "up": Said(wire._Header, form="A header line of this JSON, a line end, then one record token a line, as `enc` says: "
                                  "`plain`, or the lines deflated as a whole, or packed after a dictionary and deflated. "
                                  f"At most {wire.RECORDS_MAX} records and {wire.BODY_MAX_BYTES} bytes after inflating.",
               content="application/octet-stream"),
    "ack": Said(wire.Ack, wire.ACK_TYP), "hello": Said(wire.Hello), "status": Said(wire.Status), "open": Said(wire.OpenOrders),
    "config/desired": Said(config_wire.Desired, config_wire.CONFIG_TYP), "config/reported": Said(config_wire.Reported),
    "update/reported": Said(update_wire.UpdateReported),
    "cmd": Said(cmd_wire.Cmd, cmd_wire.CMD_TYP), "cmd/res": Said(cmd_wire.CmdAnswer),
    "ask": Said(ask_wire.Ask, ask_wire.ASK_TYP),
    "answer": Said(ask_wire.Answer, ask_wire.ANSWER_TYP),
    "blob/{sha256}/{n}": Said(None, form=f"{config_wire.CHUNK_BYTES} bytes of the blob, the last fewer; of a slot "
                                              "image the pieces that its index names.",
                              content="application/octet-stream"),
    "_collector/{id}/state": Said(wire.Status),
    "_enrol/{id}/ask": Said(enrol_wire.Request, form="A line with the proof (base64url HMAC-SHA256 under the code's secret), then "
                                                     "a line of this JSON.", content="application/octet-stream"),
    "_enrol/{id}/answer": Said(enrol_wire.Reply, form="A line with the proof, `-` when there is none, then a line of this JSON.",
                               content="application/octet-stream"),
}


def document() -> dict[str, Any]:
    """The whole document as a tree."""
    types = [_shown(said.type) for said in MESSAGES.values() if said.type is not None]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    payloads = dict(zip((name for name, said in MESSAGES.items() if said.type is not None), schemas, strict=True))
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Tillbox, between box and cloud", "version": __version__,
                 "description": "MQTT 5. The box's journal is the only queue; the broker may lose anything; only an `ack` releases "
                                "a record. Written by `make docs` from the code's tables; tests hold it against them and against "
                                "what a real box says. Who may read and write what: docs/broker.md."},
        "defaultContentType": "application/json",
        "channels": {_key(topic): _channel(topic) for topic in topics.TOPICS},
        "operations": {f"{topic.sender}-says-{_key(topic)}": {
            "action": "send", "channel": {"$ref": f"#/channels/{_key(topic)}"}, "title": f"{topic.sender} to {topic.reader}",
            "bindings": {"mqtt": {"qos": topic.qos, "retain": topic.retain}}} for topic in topics.TOPICS},
        "components": {"messages": {_key(topic): _message(topic, payloads) for topic in topics.TOPICS},
                       "schemas": dict(sorted(components.items()))},
    }


def text() -> str:
    import yaml

    return yaml.safe_dump(_plain(document()), sort_keys=False, allow_unicode=True, width=120)


def address(topic: topics.Topic) -> str:
    """The topic with its parameters in braces."""
    under = {"box": f"{topics.PREFIX}/{{tenant}}/{{box}}/", "tenant": f"{topics.PREFIX}/{{tenant}}/", "enrol": f"{topics.PREFIX}/"}
    return under[topic.under] + topic.name


def _shown(type_: Any) -> Any:
    """The type as a schema can show it: a field of raw JSON as one of anything."""
    if not isinstance(type_, type) or not any(field.type is msgspec.Raw for field in msgspec.structs.fields(type_)):
        return type_
    fields = [(field.name, Any, None) if field.type is msgspec.Raw else
              (field.name, field.type) if field.required else (field.name, field.type, field.default)
              for field in msgspec.structs.fields(type_)]
    shown = msgspec.defstruct(type_.__name__, fields)
    shown.__doc__ = type_.__doc__
    return shown


def _key(topic: topics.Topic) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", topic.name).strip("-")


def _channel(topic: topics.Topic) -> dict[str, Any]:
    where = address(topic)
    return {"address": where, "description": topic.what,
            "parameters": {name: {"description": PARAMETERS[name]} for name in re.findall(r"{(\w+)}", where)},
            "messages": {_key(topic): {"$ref": f"#/components/messages/{_key(topic)}"}}}


def _message(topic: topics.Topic, payloads: dict[str, Any]) -> dict[str, Any]:
    said = MESSAGES[topic.name]
    told: dict[str, Any] = {"name": topic.name, "summary": topic.what,
                            "contentType": "application/jose" if said.typ else said.content}
    if said.typ:
        told["description"] = f"A compact JWS (RFC 7515), ES256, of type `{said.typ}`; `payload` is the schema of its payload."
    elif said.form:
        told["description"] = said.form
    if said.type is not None:
        told["payload"] = payloads[topic.name]
    return told


def _plain(tree: Any) -> Any:
    """Without tuples and shared nodes, which YAML would spell out as anchors."""
    if isinstance(tree, dict):
        return {name: _plain(value) for name, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_plain(value) for value in tree]
    return tree


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
