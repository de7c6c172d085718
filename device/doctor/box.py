"""The doctor's checks of the box itself: files, journal, record key, room, clock, devices.  Each reads, and changes nothing."""

from __future__ import annotations

import datetime
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from device import __version__, real_clock
from device.appliance import walk
from device.config import MASK, show
from device.doctor import counter, kernel
from device.doctor.look import Finding, Look, found
from device.doctor.said import Said
from device.drivers.registry import signer_of
from device.drivers.signer.file import FileSigner
from device.errors import Outside
from device.identity import folder as identity
from device.price_file import read_prices
from device.push.store import PushStore
from device.store_forward.journal import RESERVE_BYTES

WAITS_H_MAX = 12                         # a night without a line is ordinary
LOW_BYTES = 200 * 1024 * 1024            # weeks of trade, and time to send somebody
EXPIRES_DAYS = 30
RENEWAL_LATE_DAYS = 14
LOOP_S, LOOP_STARTS = 600, 5            # systemd's own limit is of this order


def config_file(look: Look) -> Iterator[Finding]:
    c = look.config
    holds = [path for path, value in show(c) if value == MASK]
    mode = os.stat(look.path).st_mode
    if holds and mode & 0o077:
        yield Finding("config_open", "config", f"{look.path} holds {' and '.join(holds)} and may be read by others "
                      f"(mode {stat.S_IMODE(mode):04o}).", f"chmod 600 {look.path}, for the user of the service")
    if c.training:
        yield Finding("training", "config", "This box is set up to practise: nothing is sold.", "")


def pushed(look: Look) -> Iterator[Finding]:
    state = PushStore(Path(look.config.state_dir)).state
    told = state.tried if state.phase else state.told
    name, since = f"The pushed configuration {told.epoch}.{told.version}", f" (since {told.at[:19]})"
    if told.state == "refused":
        yield Finding("push_refused", "config", f"{name} was refused: {'; '.join(told.reasons) or told.why}.",
                      "put it right in the cloud and issue it anew: tillfleet config; docs/push.md")
    elif told.state == "rolled_back":
        yield Finding("push_undone", "config", f"{name} was taken back: {told.why}.",
                      "find out why the box did not reach the cloud under it, and issue it anew; docs/push.md")
    elif told.state in ("staged", "trial", "deferred"):
        word = {"staged": "waits", "trial": "is on trial", "deferred": "was put off"}[told.state]
        yield Finding("push_waits", "config", f"{name} {word}{since}{f': {told.why}' if told.why else ''}.", "")


def updated(look: Look) -> Iterator[Finding]:
    """What became of the newest release that the cloud asked for."""
    from device.update.updater import FILE, Wish

    try:
        wish = msgspec.json.decode((Path(look.config.state_dir) / FILE).read_bytes(), type=Wish)
    except FileNotFoundError:
        return
    except (OSError, msgspec.DecodeError) as why:
        yield found("update_lost", "update", f"What the cloud asked for of an update cannot be read: {why}.")
        return
    if wish.state == "rolled_back":
        yield Finding("update_undone", "update", f"Release {wish.version} was taken back: {wish.why}.",
                      "put right what it says, and push it again: tillfleet update push; docs/update.md")
    elif wish.state == "refused":
        yield Finding("update_refused", "update", f"Release {wish.version or wish.release[:12]} was refused: {wish.why}.",
                      "sign a release for this box: tillfleet update sign; docs/update.md")
    elif wish.state in ("fetching", "ready", "trial"):
        word = {"fetching": "is being fetched", "ready": "waits for its hour", "trial": "is on trial"}[wish.state]
        yield Finding("update_runs", "update", f"Release {wish.version or wish.release[:12]} {word}.", "")


def daemon(look: Look) -> Iterator[Finding]:
    if not look.running:
        if look.journal_path.exists():
            yield found("daemon_down", "daemon")
        return
    said = look.said
    if said is None:
        yield found("daemon_mute", "daemon", f"The daemon holds its socket and says nothing of use: {look.unfit}.")
        return
    yield from counter.said(look, said)
    waits_h = said.oldest_unacked_s // 3600
    if waits_h >= WAITS_H_MAX:
        yield Finding("records_wait", "cloud", f"{said.unacked} records wait for the cloud, the oldest for "
                      f"{waits_h} hours; there is room for {said.room_bytes >> 20} MB more.",
                      "look at link and collector above; `tillbox forward` tries at once")
    if said.parked:
        yield Finding("parked", "payments", f"Payments without an end that were set aside: {len(said.parked)}.", "")
    yield from _restart_due(look, said)


def _restart_due(look: Look, said: Said) -> Iterator[Finding]:
    """Whether the daemon still runs what was there before: another software, or another configuration file."""
    if said.software and said.software != __version__:
        yield found("update_waits", "update", f"The daemon still runs tillbox {said.software}; {__version__} is installed.")
    if said.since and os.stat(look.path).st_mtime > said.since + 1:
        yield found("config_waits", "config", f"{look.path} was changed after the daemon's start.")


def starts(look: Look) -> Iterator[Finding]:
    """What the starts in the journal tell: a daemon that dies again and again, an update that did not hold."""
    if look.books is None or not look.boots:
        return
    now = datetime.datetime.now().astimezone()
    late = [wall for wall, _ in look.boots if _within(now, wall, LOOP_S)]
    if len(late) >= LOOP_STARTS:
        yield found("restart_loop", "watchdog", f"The daemon was started {len(late)} times within {LOOP_S // 60} minutes.")
    newest = max((software for _, software in look.boots), key=_release)
    if _release(newest) > _release(__version__):
        yield found("update_fell_back", "update", f"tillbox {newest} ran here before, and {__version__} is installed: an "
                    "update did not hold.")


def _within(now: datetime.datetime, wall: str, seconds: int) -> bool:
    try:
        return 0 <= (now - datetime.datetime.fromisoformat(wall)).total_seconds() <= seconds
    except ValueError:
        return False


def _release(software: str) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"[0-9]+", software)[:3])


def journal(look: Look) -> Iterator[Finding]:
    if look.running:
        return                                           # it would not run without; what it says of it stands above
    if isinstance(look.told, Outside):
        yield Finding("journal_unreadable", "journal", look.told.what, look.told.hint)
    elif look.told is None:
        yield Finding("journal_new", "journal", f"There is no journal at {look.journal_path}: the next start makes one.", "")


def last_walk(look: Look) -> Iterator[Finding]:
    """What came of the walk that a unit asks for after each start; a box without that unit has none."""
    told = walk.last(look.config.state_dir)
    if told is not None and not told["whole"]:
        defects = "; ".join(map(str, told["defects"]))
        yield found("chain_broken", "journal", f"The box's own chain of records does not hold: {defects}.")


def record_key(look: Look) -> Iterator[Finding]:
    """A key is missing only where a journal names one; looking makes none."""
    kid = look.books.chain.kid if look.books is not None else ""
    if look.config.signer.kind == "pkcs11" and not look.config.training:
        yield from _record_token(look, kid)
        return
    path = str(look.journal_path.with_name("training.key")) if look.config.training else look.config.record_key_file
    if not os.path.lexists(path):
        if kid or look.running:
            yield Finding("record_key_gone", "signer", f"The record key {path} is not there.",
                          "put that key back; when it is lost for good, see docs/recovery.md")
        return
    try:
        FileSigner(path, kid)
    except Outside as why:
        yield Finding("record_key_unfit", "signer", why.what, why.hint or "see docs/recovery.md")


def _record_token(look: Look, kid: str) -> Iterator[Finding]:
    """The running daemon has the token's session, and says itself when it is broken."""
    if look.running or not kid:
        return
    try:
        assert signer_of(look.config, kid, make=False).jwk
    except Outside as why:
        yield Finding("record_key_unfit", "signer", why.what, why.hint or "see docs/recovery.md")


def room(look: Look) -> Iterator[Finding]:
    try:
        card = os.statvfs(look.config.state_dir)
    except OSError as why:
        yield Finding("state_gone", "card", f"{look.config.state_dir} cannot be used: {why.strerror}.", "look at the card")
        return
    if kernel.is_readonly(look):
        yield found("card_readonly", "card", f"{look.config.state_dir} lies on a file system that only reads: nothing can be sold.")
        return
    free = card.f_bavail * card.f_frsize
    if free < RESERVE_BYTES:
        yield Finding("card_full", "card", f"{free >> 20} MiB are free on the card: the box begins nothing new.",
                      "connect it, so that it can send; or make room on the card")
    elif free < LOW_BYTES:
        yield Finding("card_low", "card", f"{free >> 20} MiB are free on the card.", "see what fills it, before the till stops")
    if not os.access(look.config.state_dir, os.W_OK):
        yield Finding("state_closed", "card", f"{look.config.state_dir} may not be written by this user.",
                      "run this as the service's user; if it is, look at the folder's owner, and whether the card is read-only")


def clock(look: Look) -> Iterator[Finding]:
    if real_clock.clock_quality() != "ntp":
        yield Finding("clock_unset", "clock", "No time server has set the clock since the start.",
                      "connect the box, or see timedatectl: payment channels refuse what is five minutes off")
    last = look.told[1] if isinstance(look.told, tuple) else ""
    if last and datetime.datetime.now().astimezone() < datetime.datetime.fromisoformat(last):
        yield Finding("clock_back", "clock", f"The clock is behind the journal's last row, of {last[:19]}.",
                      "set the clock; what was sold meanwhile keeps the time it was given")


def lists(look: Look) -> Iterator[Finding]:
    try:
        read_prices(Path(look.config.prices_file).read_bytes(), which=look.config.prices_file)
    except OSError as why:
        yield Finding("prices_gone", "prices", f"{look.config.prices_file} cannot be read ({why.strerror}): only amounts sell.",
                      "put the price list there")
    except Outside as why:
        yield Finding("prices_refused", "prices", f"{why}.", "put the price list right")
    if (path := look.config.rules_file) and not (os.path.isfile(path) and os.access(path, os.R_OK)):
        yield Finding("rules_gone", "rules", f"{look.config.rules_file} cannot be read: the table that ships is used.",
                      "put the fleet's rule table there, or take rules_file out of box.toml")


def cloud_files(look: Look) -> Iterator[Finding]:
    c = look.config.mqtt
    if not c.host:
        return
    if not c.ca_file and c.host not in ("localhost", "::1") and not c.host.startswith("127."):
        yield Finding("broker_plain", "link", f"The line to {c.host} is not encrypted.", "name mqtt.ca_file")
    try:
        json.loads(Path(look.config.ack_key_file).read_text())
    except (OSError, ValueError) as why:
        yield Finding("ack_key_unfit", "link", f"{look.config.ack_key_file} holds no key to check acknowledgements with "
                      f"({type(why).__name__}): records are kept and sent again for ever.", "fetch it from the cloud's people")
    if look.config.command_key_file and not os.access(look.config.command_key_file, os.R_OK):
        yield Finding("command_key_gone", "link", f"{look.config.command_key_file} cannot be read: no command is obeyed.",
                      "fetch it from the cloud's people, or take command_key_file out of the file")
    for path in filter(None, (c.ca_file, c.cert_file, c.key_file)):
        if os.path.isdir(path) or not os.access(path, os.R_OK):
            yield Finding("cloud_file_gone", "link", f"{path} cannot be read.", "put it there, for the user of the service")
    if c.key_file and os.path.exists(c.key_file) and os.stat(c.key_file).st_mode & 0o077:
        yield Finding("key_open", "link", f"{c.key_file} may be read by others.", f"chmod 600 {c.key_file}")
    if c.cert_file:
        yield from expiring("link", c.cert_file)


def enrolment(look: Look) -> Iterator[Finding]:
    """Whether the cloud knows this box, and whether its certificate was renewed when it was due."""
    c = look.config
    if c.training or (c.mqtt.cert_file and not identity.enrolled(c)):
        return                                           # certificates given by hand: said by `cloud_files`
    if not identity.enrolled(c):
        yield Finding("not_enrolled", "identity", f"This box is not enrolled: {c.identity_dir} holds no identity.", "")
        return
    try:
        span = identity.span_of(Path(c.mqtt.cert_file).read_bytes())
    except (OSError, ValueError):
        return                                           # said by `cloud_files`
    now = datetime.datetime.now(datetime.UTC)
    if now > span.renew_at + datetime.timedelta(days=RENEWAL_LATE_DAYS):
        yield Finding("renewal_late", "identity", f"The certificate of the line ends in {(span.ends - now).days} days, and was due "
                      f"for renewal on {span.renew_at.date()}.", "have the box on the line for a day; then look at its log, and at "
                      "`tillfleet enrol list` in the cloud; a fresh code renews it, too")


def expiring(part: str, path: str) -> Iterator[Finding]:
    """A certificate that is over, or soon will be."""
    from cryptography import x509
    try:
        cert = x509.load_pem_x509_certificate(Path(path).read_bytes())
    except OSError:
        return                                           # said elsewhere
    except ValueError:
        yield Finding("certificate_unfit", part, f"{path} holds no readable PEM certificate.", "put the right file there")
        return
    if cert.not_valid_before_utc > datetime.datetime.now(datetime.UTC):
        yield found("certificate_early", part, f"The certificate {path} begins on {cert.not_valid_before_utc.date()}.")
    left = cert.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    if left < datetime.timedelta(0):
        yield found("certificate_over", part, f"The certificate {path} ended on {cert.not_valid_after_utc.date()}.")
    elif left < datetime.timedelta(days=EXPIRES_DAYS):
        yield found("certificate_soon", part, f"The certificate {path} ends on {cert.not_valid_after_utc.date()}.")
