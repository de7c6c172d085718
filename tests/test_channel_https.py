"""The line under every channel: real TLS on the loopback, and every way an answer can fail to come."""

from __future__ import annotations

import asyncio
import dataclasses
import json

import pytest

from device.drivers.channel_bytes import Request
from device.drivers.channel_https import Lines, NoAnswer
from sim.channels.server import Answer, Ask, ChannelServer, Say
from sim.channels.tls import tls_room


class Echo(ChannelServer):
    """Says who the caller proved to be."""

    def call_of(self, method, path, body):
        return "echo"

    def rules_say(self, ask: Ask) -> Say:
        return Say(200, json.dumps({"client": ask.client}).encode())

    def proved(self, ask: Ask, say: Say, kind: str) -> Answer:
        return Answer(say.status, {"Content-Type": "application/json"}, say.body)


@pytest.fixture(scope="module")
def room():
    return tls_room()


@dataclasses.dataclass
class Far:
    """A server in `room`, and lines to it that trust `room` and show its client certificate where told."""

    room: object
    folder: object
    asks: str = "asked"

    def __post_init__(self):
        self.server = Echo(tls=self.room.server_context(client=self.asks))
        self.server.start()
        self.ca_file, self.client_cert = self.room.written(self.folder)

    def asked(self, *, client_cert="", ca_file=None):
        async def run():
            lines = Lines(self.server.url, "WeChat", connect_s=2, read_s=2, at_once=1,
                          ca_file=self.ca_file if ca_file is None else ca_file, client_cert=client_cert)
            try:
                return await lines.ask(Request("GET", "/"))
            finally:
                await lines.close()
        return asyncio.run(run())


@pytest.fixture
def far(room, tmp_path):
    made = Far(room, tmp_path)
    yield made
    made.server.stop()


def test_a_client_certificate_is_shown_and_named(far):
    assert json.loads(far.asked().body) == {"client": ""}
    assert json.loads(far.asked(client_cert=far.client_cert).body) == {"client": "1900000001"}


def test_a_certificate_by_another_authority_is_no_channel(far, tmp_path_factory):
    other, _ = tls_room().written(tmp_path_factory.mktemp("other"))
    with pytest.raises(NoAnswer, match="certificate is not WeChat's") as caught:
        far.asked(ca_file=other)
    assert caught.value.health == "lying"
    assert not far.server.seen
