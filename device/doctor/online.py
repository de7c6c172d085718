"""The doctor's checks over the line, step by step: name, line, certificate, clock, and one signed question to each channel.

The question is after an order that was never made: it moves nothing, and its answer proves that both sides take each other's
signature.  The broker is greeted and left before a word of MQTT, for a second client of the same name would end the box's own line.
All lines are tried at once, and each wait is bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import email.utils
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from device.config import CARD, ChannelConfig, account_of
from device.doctor import kernel
from device.doctor.keys import Reading
from device.doctor.look import Finding, Look, found
from device.drivers.channels.codec_bytes import Request, Verdict
from device.drivers.registry import drivers_of
from device.txn.effects import Intent, QueryOrder
from device.txn.numbers import order_number
from device.uplink import broker_tls

LINE_S_MAX = 5.0
NAME_S_MAX = 12.0            # a resolver asks two servers twice before it gives up
ALL_S_MAX = 40.0
ALERT_S = 0.3                # in TLS 1.3 the far end refuses our certificate after the handshake
CLOCK_S_MAX = 60             # channels refuse five minutes; half a minute may be the line's
NOT_YET, OVER = 9, 10        # openssl/x509_vfy.h

# What a channel's own words are about, where the verdict's word alone does not say it; the first that fits.
ABOUT = (
    ("channel_signature", re.compile(r"our signature|accepts? (not|no) .*signature|signature of ours|sign.?err|invalid.signature|"
                                     r"does not accept .*(signature|key|certificate)", re.IGNORECASE)),
    ("channel_unproven", re.compile(r"signature|prove|certificate|key we|no key", re.IGNORECASE)),
    ("channel_account", re.compile(r"account|merchant|mch|appid|app_id|application|terminal|shop|permission|privilege|not allowed|"
                                   r"token|partner|did not say what became of it \(31\)", re.IGNORECASE)),
)


def lines(look: Look) -> Iterator[Finding]:
    """The broker's line and each channel's; nothing where the box has no way out, for that is said already."""
    if any(kernel.link(look)):
        return
    sections = [] if look.config.training else [c for c in look.config.channels if c.name != CARD and c.base_url]
    mqtt = look.config.mqtt
    ends = {(urlsplit(c.base_url).hostname or "", _port(c)) for c in sections} | ({(mqtt.host, mqtt.port)} if mqtt.host else set())
    names = at_once({end: partial(name_fault, *end) for end in ends}, NAME_S_MAX)
    lost = {host: names.get((host, port), ("again", f"The name {host} was not looked up in time."))
            for host, port in ends if names.get((host, port), "late")}
    if lost and (dead := _no_names(look, lost, {host for host, _ in ends})):
        yield found("dns", "link", dead)
        return
    work: dict[Any, Callable[[], Iterable[Finding]]] = {}
    if mqtt.host:
        work["link"] = partial(_broker, look, lost)
    drivers = drivers_of(look.config, lambda symbol: None, Reading(look.store)) if sections else {}
    for c in sections:
        work[c.name] = partial(_channel, c, drivers[f"channel:{c.name}"], look.config.box_no, lost)
    answers = at_once(work, ALL_S_MAX - NAME_S_MAX)
    for who in work:
        if who in answers:
            yield from answers[who]
        elif who == "link":
            yield found("broker_line", "link", f"{mqtt.host}:{mqtt.port} did not finish its greeting in time.")
        else:
            yield found("channel_silent", f"channel.{who}", f"{who} did not finish its answer in time.")


def _no_names(look: Look, lost: dict[str, tuple[str, str]], hosts: set[str]) -> str:
    """Why no name can be looked up; "" where only some name is wrong."""
    named = {host for host in hosts if not _numeric(host) and not kernel.is_here(host)}
    if kernel.no_servers(look):
        return "/etc/resolv.conf names no server: no name can be looked up."
    if lost.keys() >= named and (len(named) > 1 or any(kind == "again" for kind, _ in lost.values())):
        return f"No name can be looked up ({', '.join(sorted(lost))}): the name server does not answer."
    return ""


def _broker(look: Look, lost: dict[str, tuple[str, str]]) -> Iterator[Finding]:
    c = look.config.mqtt
    if c.host in lost:
        yield found("broker_name", "link", lost[c.host][1], "look at mqtt.host, and at the box's network and its name server")
        return
    try:
        context = broker_tls(look.config)
    except (OSError, ValueError) as unfit:              # its file is said by the look at the cloud's files
        yield found("broker_tls", "link", f"The certificates for {c.host} cannot be used ({unfit}).",
                    "look at mqtt.ca_file, cert_file and key_file")
        return
    fault = _greeted(c.host, c.port, context, ALERT_S)
    if fault is not None:
        yield from _of_fault("broker", "link", f"{c.host}:{c.port}", fault)
        return
    said = look.said
    if said is not None and said.health.get("link") == "down" and said.link_why and "not connected yet" not in said.link_why:
        yield found("broker_refuses", "link", f"The broker is there and does not take this box: {said.link_why}.")


class _Fault(Exception):
    """`kind` line, certificate, tls or clock, and why in half a sentence."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind, self.why = kind, why


def _of_fault(head: str, part: str, where: str, fault: _Fault) -> Iterator[Finding]:
    if fault.kind == "clock":
        yield found("clock_off", "clock", f"Our clock is wrong: {where} {fault.why}.")
    else:
        said = {"line": f"No line to {where} ({fault.why}).", "tls": f"No encrypted line to {where} ({fault.why}).",
                "certificate": f"The certificate of {where} is not to be trusted: {fault.why}."}[fault.kind]
        yield found(f"{head}_{fault.kind}", part, said)


def _greeted(host: str, port: int, context: ssl.SSLContext | None, alert_s: float = 0.0) -> _Fault | None:
    """Connect, shake hands, hear for `alert_s` whether our certificate is refused, leave.  What did not work."""
    try:
        line = socket.create_connection((host, port), LINE_S_MAX)
    except OSError as why:
        return _Fault("line", why.strerror or str(why) or "no answer in time")
    with line:
        if context is None:
            return None
        try:
            with context.wrap_socket(line, server_hostname=host) as tls:
                tls.settimeout(alert_s)
                with contextlib.suppress(TimeoutError, ssl.SSLWantReadError):
                    tls.recv(1)
                return None
        except ssl.SSLCertVerificationError as why:
            return _dated(host, port, why)
        except (OSError, ValueError) as why:             # ssl's own among them
            told = getattr(why, "reason", "") or getattr(why, "strerror", "") or str(why) or "no answer in time"
            return _Fault("tls", told.replace("_", " ").lower())


def _dated(host: str, port: int, why: ssl.SSLCertVerificationError) -> _Fault:
    """Whether a certificate out of its time is the certificate's fault or our clock's."""
    said = why.verify_message or "it cannot be checked"
    if why.verify_code not in (NOT_YET, OVER):
        return _Fault("certificate", said)
    cert, date = _unchecked(host, port)
    now = datetime.datetime.now(datetime.UTC)
    off_s = _off_s(date) if date else None
    if off_s is not None and abs(off_s) > CLOCK_S_MAX:
        return _Fault("clock", f"says that it is {abs(off_s):.0f} s {'earlier' if off_s > 0 else 'later'}")
    if why.verify_code == NOT_YET:
        begins = f"holds from {cert.not_valid_before_utc:%Y-%m-%d} on" if cert is not None else said
        return _Fault("clock", f"shows a certificate that {begins}, and we have {now:%Y-%m-%d}")
    over = f"it ended on {cert.not_valid_after_utc:%Y-%m-%d}" if cert is not None else said
    return _Fault("certificate", over)


def _unchecked(host: str, port: int) -> tuple[Any, str]:
    """The far end's certificate and the date it names, nothing of it believed but in a sentence."""
    from cryptography import x509
    loose = ssl.create_default_context()
    loose.check_hostname, loose.verify_mode = False, ssl.CERT_NONE
    cert, date = None, ""
    try:
        with socket.create_connection((host, port), LINE_S_MAX) as line, loose.wrap_socket(line, server_hostname=host) as tls:
            cert = x509.load_der_x509_certificate(tls.getpeercert(True) or b"")
            tls.settimeout(2.0)
            tls.sendall(b"HEAD / HTTP/1.1\r\nHost: " + host.encode() + b"\r\nConnection: close\r\n\r\n")
            head = tls.recv(4096).decode("latin-1")
            date = next((row[5:].strip() for row in head.splitlines() if row.lower().startswith("date:")), "")
    except (OSError, ValueError):
        pass
    return cert, date


# A payment channel -----------------------------------------------------------------------------------------------------

def _channel(c: ChannelConfig, driver: Any, box_no: str, lost: dict[str, tuple[str, str]]) -> list[Finding]:
    async def tried() -> list[Finding]:
        try:
            return await _channel_found(c, driver, box_no, lost)
        finally:
            await driver.close()

    return asyncio.run(tried())


async def _channel_found(c: ChannelConfig, driver: Any, box_no: str, lost: dict[str, tuple[str, str]]) -> list[Finding]:
    from device.drivers.channels.https import Lines, NoAnswer

    part, parts = f"channel.{c.name}", urlsplit(c.base_url)
    host = parts.hostname or ""
    if host in lost:
        return [found("channel_name", part, lost[host][1], "look at base_url, and at the box's network and its name server")]
    try:
        context = _trust(c) if parts.scheme == "https" else None
    except OSError as why:
        return [found("channel_certificate", part, f"The roots in {c.ca_file} cannot be used ({why.strerror or why}).")]
    fault = await asyncio.to_thread(_greeted, host, _port(c), context)
    if fault is not None:
        return list(_of_fault("channel", part, host, fault))
    lines = Lines(c.base_url, c.name, connect_s=LINE_S_MAX, read_s=LINE_S_MAX, at_once=1, ca_file=c.ca_file,
                  client_cert=c.client_cert_file)
    try:
        reply = await lines.ask(Request("GET", "/"))
    except NoAnswer as silence:
        code = "channel_silent" if silence.health == "slow" else "channel_answer"
        return [found(code, part, f"{c.base_url}: {silence.why}.")]
    finally:
        await lines.close()
    off_s = _off_s(reply.headers.get("date", ""))
    if off_s is not None and abs(off_s) > CLOCK_S_MAX:
        return [found("clock_off", part, f"Our clock is {abs(off_s):.0f} s {'ahead of' if off_s > 0 else 'behind'} {c.name}'s.")]
    return await _asked(part, c, driver, box_no)


async def _asked(part: str, c: ChannelConfig, driver: Any, box_no: str) -> list[Finding]:
    if getattr(driver, "why", ""):
        return []                                        # said by the check of each channel
    # So old that no channel takes it for one still on its way, or for a QR that nobody has scanned yet.
    then = (datetime.datetime.now().astimezone() - datetime.timedelta(days=2)).isoformat(timespec="seconds")
    never = Intent(order_number(box_no, "0000", 0), c.name, account_of(c), 1, "", then, then)     # a box begins with the first
    verdict: Verdict = await driver.ask(QueryOrder(never))
    if verdict.word == "absent":
        return []
    why = verdict.detail or f"it said {verdict.word}"
    return [found(_about(verdict), part, f"{c.name} did not prove that it knows us: {why}.")]


def _about(verdict: Verdict) -> str:
    """Which of our two signatures, the account or the answer itself a verdict complains of."""
    if verdict.key_refused or verdict.health == "key":
        return "channel_signature"
    if verdict.health == "slow":
        return "channel_silent"
    if verdict.health == "gone":
        return "channel_answer"
    code = next((code for code, words in ABOUT if words.search(verdict.detail)), "")
    return code or ("channel_answer" if verdict.health == "lying" else "channel_proof")


def _trust(c: ChannelConfig) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=c.ca_file or None)
    if c.client_cert_file:
        context.load_cert_chain(c.client_cert_file)
    return context


# Names, clocks, threads ------------------------------------------------------------------------------------------------

def _port(c: ChannelConfig) -> int:
    parts = urlsplit(c.base_url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def name_fault(host: str, port: int) -> tuple[str, str] | None:
    """("again" when no server answered, else "none", a sentence); None for a name that leads somewhere."""
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as why:
        again = isinstance(why, socket.gaierror) and why.errno == socket.EAI_AGAIN
        return "again" if again else "none", f"The name {host} leads nowhere ({why.strerror or why})."
    except UnicodeError:
        return "none", f"{host} is no name."
    return None


def _numeric(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            socket.inet_pton(family, host)
            return True
    return False


def at_once(work: dict[Any, Callable[[], Any]], seconds: float) -> dict[Any, Any]:
    """What each of `work` gives; what is not ready after `seconds` is left out, and its thread holds up no end of the process."""
    answers: dict[Any, Any] = {}
    faults: list[Exception] = []

    def one(who: Any) -> None:
        try:
            answer = work[who]()
            answers[who] = list(answer) if isinstance(answer, Iterator) else answer
        except Exception as why:                         # noqa: BLE001  ours: it must not vanish with its thread
            faults.append(why)

    threads = [threading.Thread(target=one, args=(who,), daemon=True) for who in work]
    until = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    if faults:
        raise faults[0]
    return dict(answers)


def _off_s(date: str) -> float | None:
    """How far we are ahead of a Date header, None for one that cannot be read."""
    try:
        theirs = email.utils.parsedate_to_datetime(date)
    except (TypeError, ValueError):
        return None
    return (datetime.datetime.now(datetime.UTC) - theirs.astimezone(datetime.UTC)).total_seconds()
