"""The broker's configuration as it ships (`broker/`), with names, ports and paths filled in for one place.

Knows Mosquitto's files; refuses to know how it is started.  docs/broker.md is the page for whoever runs it.
"""

from __future__ import annotations

import os
from pathlib import Path

from device.mqtt import topics
from fleet import files
from fleet.identity.ca import Authority

SHIPPED = Path(__file__).with_name("broker")
PORT, ENROL_PORT = 8883, 8884
_LINES = ("box", "collector", "courier", "service")          # uses of a certificate that open a line
# What the cloud says to boxes; who holds a key that boxes obey stands apart from who meets every stranger's message.
_SAID = [t for t in topics.TOPICS if (t.sender, t.under) == ("cloud", "box")]
_CARRIED = ("config/desired", "cmd", "blob/{sha256}/{n}")


def rendered(authority: Authority, folder: Path, *, port: int = PORT, enrol_port: int = ENROL_PORT, bind: str = "",
             user: str = "mosquitto", host: str = "", log: str = "syslog") -> None:
    """Everything that the two programs read, into `folder`: made anew, each file whole or not at all.

    `bind` an address to listen at, "" for all; `host` where the enrolment listener finds the broker, the first name in its
    certificate when left out.  CaError when the authority has no certificate for a broker.
    """
    folder.mkdir(parents=True, exist_ok=True)
    os.chmod(folder, 0o2750)                                 # what is written here later belongs to Mosquitto's group, too
    host = host or authority.broker_hosts()[0]
    fill = {"PORT": str(port), "ENROL_PORT": str(enrol_port), "BIND": bind, "FOLDER": str(folder), "USER": user, "LOG": log,
            "TENANT": authority.tenant, "BROKER_HOST": host}
    for name in ("mosquitto.conf", "enrol.conf", "enrol.acl"):
        files.written(folder / name, _filled((SHIPPED / name).read_text(), fill), mode=0o640)
    if not (folder / "enrol" / "tls.pem").exists() or authority.due(f"{authority.tenant}/_enrol"):
        authority.client(f"{authority.tenant}/_enrol", folder / "enrol", use="service")
        os.chmod(folder / "enrol", 0o2750)
        os.chmod(folder / "enrol" / "tls.key", 0o640)
    files.written(folder / "broker.key", (authority.folder / "broker.key").read_bytes(), mode=0o640)
    files.written(folder / "broker.pem", (authority.folder / "broker.pem").read_bytes())
    files.written(folder / "ca.pem", authority.ca_pem)
    refreshed(authority, folder)


def refreshed(authority: Authority, folder: Path) -> bool:
    """What changes with each collector and each revocation: `acl` and `crl.pem`.  The broker reads both again at SIGHUP.

    True when one of them was another before.  It costs nothing to ask often: Mosquitto keeps every list of the revoked that it ever
    read, so it should not be told without need.
    """
    if authority.crl_due():
        authority.write_crl()
    now = {"acl": (acl(authority).encode(), 0o640), "crl.pem": (authority.crl_pem, 0o644)}
    fresh = [name for name, (content, _) in now.items() if not _holds(folder / name, content)]
    for name in fresh:
        files.written(folder / name, now[name][0], mode=now[name][1])
    return bool(fresh)


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except FileNotFoundError:
        return False


def acl(authority: Authority) -> str:
    """The list that ships, then the cloud's side by name, then those who are revoked: a connection that stands outlives its
    certificate, so they are also shut out by name.
    """
    issued = [one for one in authority.issued() if one.use in _LINES]
    valid = {one.name: one.use for one in issued if not one.revoked}
    over = {one.name for one in issued} - set(valid)
    asks, answers = f"{topics.PREFIX}/_enrol/+/ask", f"{topics.PREFIX}/_enrol/+/answer"
    tenant = f"{topics.PREFIX}/{authority.tenant}"
    lines = [(SHIPPED / "acl").read_text(), f"pattern read {tenant}/_collector/+/state"]
    for name, use in sorted(valid.items()):
        if use == "collector":
            lines += ["", f"user {name}", f"topic write {topics.PREFIX}/{name}/state"]
            lines += [f"topic read {asks}", f"topic write {answers}"]
            lines += [f"topic read {tenant}/+/{t.name}" for t in topics.TOPICS if (t.sender, t.under) == ("box", "box")]
            lines += [f"topic write {tenant}/+/{_filter(t)}" for t in _SAID if t.name not in _CARRIED]
        elif use == "courier":
            lines += ["", f"user {name}", *[f"topic write {tenant}/+/{_filter(t)}" for t in _SAID if t.name in _CARRIED]]
        elif use == "service":
            lines += ["", f"user {name}", f"topic write {asks}", f"topic read {answers}"]
    for name in sorted(over):
        lines += ["", f"user {name}", "topic deny #"]
    return "\n".join(lines) + "\n"


def _filter(topic: topics.Topic) -> str:
    return topic.name.partition("{")[0] + "#" if "{" in topic.name else topic.name


def open_listener(port: int, bind: str, user: str) -> str:
    """The same limits before a listener that asks nobody who he is: for tests and simulators on one machine."""
    limits = (SHIPPED / "mosquitto.conf").read_text().partition("# Boxes, collectors")[0]
    return _filled(limits, {"USER": user, "LOG": "stderr"}) + f"listener {port} {bind}\nallow_anonymous true\n"


def _filled(text: str, fill: dict[str, str]) -> str:
    for name, value in fill.items():
        text = text.replace(f"@{name}@", value)
    assert "@" not in text, text
    return text
