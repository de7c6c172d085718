"""One MQTT client in a test: what the broker answered it and what it heard, waited for without sleeping."""

from __future__ import annotations

import queue
import ssl
from pathlib import Path
from typing import Any

from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

WAIT_S = 10.0
REFUSED = 0x87                                               # not authorised


def context(folder: Path, ca: Path | None = None, *, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """TLS of whoever has `tls.key` and `tls.pem` in `folder`, or of nobody when they are not there."""
    made = ssl.create_default_context(cafile=str(ca or folder / "ca.pem"))
    if newest < ssl.TLSVersion.TLSv1_2:
        made.set_ciphers("ALL:@SECLEVEL=0")
    made.minimum_version, made.maximum_version = min(newest, ssl.TLSVersion.TLSv1_2), newest
    if (folder / "tls.pem").exists():
        made.load_cert_chain(folder / "tls.pem", folder / "tls.key")
    return made


class Peer:
    """A connected client.  ConnectionError when the broker does not want it."""

    def __init__(self, port: int, tls: ssl.SSLContext | None, *, client_id: str = "", user: str | None = None,
                 host: str = "127.0.0.1") -> None:
        self.heard: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.codes: dict[int, int] = {}
        self._said: queue.Queue[tuple[str, int, Any]] = queue.Queue()
        self._client = c = Client(CallbackAPIVersion.VERSION2, client_id=client_id or "any", protocol=MQTTv5)
        if tls is not None:
            c.tls_set_context(tls)
        if user is not None:
            c.username_pw_set(user)
        c.max_queued_messages_set(0)
        c.on_connect = lambda _c, _u, _f, code, props: self._said.put(("connect", code.value, props))
        c.on_disconnect = lambda _c, _u, _f, code, _p: self._said.put(("gone", 0, None))
        c.on_connect_fail = lambda _c, _u: self._said.put(("gone", 0, None))
        c.on_subscribe = lambda _c, _u, mid, codes, _p: self._said.put(("subscribed", mid, codes))
        c.on_publish = lambda _c, _u, mid, code, _p: self._said.put(("published", mid, code.value))
        c.on_message = lambda _c, _u, m: self.heard.put((m.topic, m.payload))
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 0
        try:
            c.connect(host, port, clean_start=True, properties=properties)
        except OSError as why:
            raise ConnectionError(str(why)) from why
        c.loop_start()
        what, code, self.connack = self._said.get(timeout=WAIT_S)
        if what != "connect" or code:
            self.close()
            raise ConnectionError(f"{what} {code}")

    def follow(self, *filters: str) -> None:
        self._client.subscribe([(f, SubscribeOptions(qos=1)) for f in filters])
        what, *_ = self._said.get(timeout=WAIT_S)
        assert what == "subscribed", what

    def follow_unchecked(self, *wrong: str) -> None:
        """Ask for what the library would not."""
        self._client._filter_wildcard_len_check = lambda _: 0                          # type: ignore[method-assign]
        self.follow(*wrong)

    def say(self, *messages: tuple[str, bytes], retain: bool = False) -> list[int]:
        """The broker's reason code for each message, in order."""
        mids = [self._client.publish(topic, payload, qos=1, retain=retain).mid for topic, payload in messages]
        codes: dict[int, int] = {}
        while len(codes) < len(mids):
            what, mid, code = self._said.get(timeout=WAIT_S)
            assert what == "published", what
            codes[mid] = code
        return [codes[mid] for mid in mids]

    def hears(self, until: str) -> list[tuple[str, bytes]]:
        """All that came before a message on topic `until`, which ends the waiting."""
        came = []
        while (one := self.heard.get(timeout=WAIT_S))[0] != until:
            came.append(one)
        return came

    @property
    def gone(self) -> bool:
        """True once the broker has ended this connection."""
        try:
            return self._said.get(timeout=WAIT_S)[0] == "gone"
        except queue.Empty:
            return False

    @property
    def there(self) -> bool:
        return self._client.is_connected()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
