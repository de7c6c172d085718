"""The line of an enrolment: one request over MQTT to the enrolment listener, whose CA is the one in the code, and one reply.

Nobody is trusted at first sight: the listener must show a CA whose SHA-256 the code holds, and only then is a line made, checked
from end to end against that CA alone.  Knows sockets and TLS; refuses to know what the messages say.
"""

from __future__ import annotations

import hashlib
import queue
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

from device.errors import DriverGone
from device.mqtt import enrol_wire, topics

CONNECT_S = 10.0
# The request leaves once more after each of these but the last, the same bytes: what stands behind the listener may just come up.
# At most three of a code's tries go by it, and the desk has one reply for all.
ANSWERS_S = (5.0, 7.0, 12.0)
NOBODY_S, NOBODY_LISTENS = 0.25, 0x10    # so soon again, when the listener itself says that it went nowhere
_DER = 2                                 # _ssl.ENCODING_DER


def asked(host: str, port: int, code: enrol_wire.Code, request: bytes, ca_pem: bytes = b"") -> bytes:
    """What the desk behind HOST:PORT replies.  DriverGone, one sentence, when nobody does, or when it is not the code's.

    `ca_pem` the CA's certificate where the listener does not show it itself; it is believed no more than one that is shown.
    """
    ca = pinned([_der(ca_pem)] if ca_pem else shown(host, port), code, f"{host}:{port}" if not ca_pem else "the file")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(ca))
    return _exchanged(host, port, context, code, request)


def shown(host: str, port: int) -> list[bytes]:
    """The certificates that a server shows, DER, unproven."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE          # only looked at: nothing is said on this line
    try:
        with socket.create_connection((host, port), CONNECT_S) as line, context.wrap_socket(line, server_hostname=host) as tls:
            if hasattr(tls, "get_unverified_chain"):                            # Python 3.13 on
                return list(tls.get_unverified_chain())
            inner: Any = tls._sslobj                                           # type: ignore[attr-defined]
            return [one.public_bytes(_DER) for one in inner.get_unverified_chain() or ()]
    except (OSError, ValueError) as why:
        raise _gone(f"No TLS line to {host}:{port} ({why}).", "look at the name, the port and the box's network") from None


def pinned(chain: list[bytes], code: enrol_wire.Code, where: str) -> bytes:
    """The certificate that the code names.  DriverGone when it is not there."""
    for one in chain:
        if hashlib.sha256(one).digest()[:len(code.pin)] == code.pin:
            return one
    raise _gone(f"{where} shows no certificate of the CA that the code names: nothing was told to it.",
                "it is another merchant's, or something sits in between; is HOST:PORT right? --ca FILE names the CA's certificate")


def _exchanged(host: str, port: int, context: ssl.SSLContext, code: enrol_wire.Code, request: bytes) -> bytes:
    from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5
    from paho.mqtt.subscribeoptions import SubscribeOptions

    told: queue.Queue[bytes | str | None] = queue.Queue()            # None: the listener has nobody to hand it to
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
    client.username_pw_set(code.id)                          # the listener's ACL lets each name into its own two topics
    client.tls_set_context(context)
    client.connect_timeout = CONNECT_S

    def connected(c: Any, _u: Any, _flags: Any, reason: Any, _p: Any) -> None:
        if reason.is_failure:
            told.put(f"the listener refused the connection: {reason}")
        else:
            c.subscribe(topics.enrol(code.id, "answer"), options=SubscribeOptions(qos=1))

    def subscribed(c: Any, _u: Any, _mid: int, reasons: list[Any], _p: Any) -> None:
        if reasons[0].is_failure:
            told.put(f"the listener refused the subscription: {reasons[0]}")
        else:
            c.publish(topics.enrol(code.id, "ask"), request, qos=1)

    def taken(_c: Any, _u: Any, _mid: int, reason: Any, _p: Any) -> None:
        if reason.value == NOBODY_LISTENS:
            told.put(None)

    client.on_connect, client.on_subscribe, client.on_publish = connected, subscribed, taken
    client.on_message = lambda _c, _u, message: told.put(bytes(message.payload))
    try:
        client.connect(host, port, keepalive=30, clean_start=True)
    except ssl.SSLCertVerificationError as why:
        clock = "the box's clock says another time" if "not yet valid" in str(why) or "expired" in str(why) else ""
        raise _gone(f"The certificate of {host}:{port} does not hold ({why.verify_message}).",
                    f"{clock}: set it with timedatectl" if clock else "the CA's people look at the broker's certificate") from None
    except (OSError, ValueError) as why:
        raise _gone(f"No line to {host}:{port} ({why}).", "look at the name, the port and the box's network") from None
    client.loop_start()
    try:
        reply = _awaited(told, lambda: client.publish(topics.enrol(code.id, "ask"), request, qos=1))
    except queue.Empty:
        raise _gone(f"Nobody behind {host}:{port} knows this code, or no desk is on the line.",
                    "give the same code again when `tillfleet enrol serve` runs: it is not used up") from None
    finally:
        client.disconnect()
        client.loop_stop()
    if isinstance(reply, str):
        raise _gone(f"{host}:{port}: {reply}.", "the fleet's people look at the broker")
    return reply


def _awaited(told: queue.Queue[bytes | str | None], again: Callable[[], object]) -> bytes | str:
    """The first word that comes; queue.Empty when none does, however often it is asked."""
    for wait_s in ANSWERS_S:
        until_s = time.monotonic() + wait_s
        while True:
            try:
                word = told.get(timeout=max(0.01, until_s - time.monotonic()))
            except queue.Empty:
                break
            if word is not None:
                return word
            time.sleep(NOBODY_S)
            if time.monotonic() < until_s:
                again()
        if wait_s != ANSWERS_S[-1]:
            again()
    raise queue.Empty


def _der(pem: bytes) -> bytes:
    try:
        return ssl.PEM_cert_to_DER_cert(pem.decode())
    except (ValueError, UnicodeDecodeError):
        raise _gone("The CA's file holds no PEM certificate.", "fetch ca.pem from the fleet's people") from None


def _gone(what: str, hint: str) -> DriverGone:
    return DriverGone(what, which="enrol", hint=hint)
