"""The topics between boxes and cloud, as one literal table, and the only place where a topic is put together or taken apart.

Knows names; refuses to know payloads (`wire.py`), connections and brokers.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

PREFIX = "tb1"
SHARE = "collect"                        # name of the collectors' shared subscription, where no box could join it

_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_BOX = re.compile(r"[a-z0-9-]{1,32}")
_COLLECTOR = re.compile(r"[a-z0-9-]{1,32}")
_CODE = re.compile(r"[0-9A-HJKMNP-TV-Z]{6}")
_DIGEST = re.compile(r"[0-9a-f]{64}|[A-Za-z0-9_-]{43}")


class TopicError(ValueError):
    """A name that may not stand in a topic, or a topic that is none of ours; the sentence says which."""


class Topic(msgspec.Struct, frozen=True):
    """One row of the table.

    `sender` and `reader` are `box` or `cloud`; `under` is `box` for topics below `tb1/{tenant}/{box}/`, `tenant` for those below
    `tb1/{tenant}/` and `enrol` for those below `tb1/_enrol/`, on a listener of their own.
    """

    name: str
    sender: str
    reader: str
    qos: int
    retain: bool
    what: str
    under: str = "box"


TOPICS: tuple[Topic, ...] = (
    Topic("up", "box", "cloud", 1, False, "a batch of records"),
    Topic("ack", "cloud", "box", 1, False, "what the collector has committed, signed"),
    Topic("hello", "box", "cloud", 1, False, "journals, session nonce and state of the box after each connect"),
    Topic("status", "box", "cloud", 1, True, "birth, and the will with the same connect counter"),
    Topic("open", "box", "cloud", 1, True, "orders not yet decided"),
    Topic("config/desired", "cloud", "box", 1, True, "signed configuration"),
    Topic("config/reported", "box", "cloud", 1, True, "what became of it"),
    Topic("update/reported", "box", "cloud", 1, True, "which release runs, what became of the newest, which pieces it lacks"),
    Topic("cmd", "cloud", "box", 1, False, "a signed command for this session"),
    Topic("cmd/res", "box", "cloud", 1, False, "its answer"),
    Topic("ask", "box", "cloud", 1, False, "a signed question, such as another box's sale"),
    Topic("answer", "cloud", "box", 1, False, "its signed answer"),
    Topic("blob/{sha256}/{n}", "cloud", "box", 1, False, "chunk n of a named blob"),
    Topic("_collector/{id}/state", "cloud", "box", 1, True, "whether this collector is up", under="tenant"),
    Topic("_enrol/{id}/ask", "box", "cloud", 1, False, "a box asks for its identity under a one-use code", under="enrol"),
    Topic("_enrol/{id}/answer", "cloud", "box", 1, False, "what became of that, once and for good", under="enrol"),
)

BY_NAME: dict[str, Topic] = {t.name: t for t in TOPICS}


def tenant_checked(name: str) -> str:
    """`name` if it may be a tenant (`[a-z0-9][a-z0-9-]{0,31}`), else TopicError."""
    if not _TENANT.fullmatch(name):
        raise TopicError(f"tenant {name[:40]!r} is not 1 to 32 of a-z, 0-9 and '-', starting with a letter or digit")
    return name


def box_checked(name: str) -> str:
    """`name` if it may be a box id (`[a-z0-9-]{1,32}`), else TopicError."""
    if not _BOX.fullmatch(name):
        raise TopicError(f"box {name[:40]!r} is not 1 to 32 of a-z, 0-9 and '-'")
    return name


def of_box(tenant: str, box: str, name: str) -> str:
    """The topic `name` of the table for one box: `of_box("shop", "box-1", "up")` is `tb1/shop/box-1/up`."""
    assert name in BY_NAME and BY_NAME[name].under == "box" and "{" not in name, name
    return f"{PREFIX}/{tenant_checked(tenant)}/{box_checked(box)}/{name}"


def up(tenant: str, box: str) -> str:
    return of_box(tenant, box, "up")


def ack(tenant: str, box: str) -> str:
    return of_box(tenant, box, "ack")


def hello(tenant: str, box: str) -> str:
    return of_box(tenant, box, "hello")


def status(tenant: str, box: str) -> str:
    return of_box(tenant, box, "status")


def open_orders(tenant: str, box: str) -> str:
    return of_box(tenant, box, "open")


def blob(tenant: str, box: str, sha256: str, n: int) -> str:
    """The topic of chunk `n` (from 0) of the blob named by its digest, hex or base64url."""
    if not _DIGEST.fullmatch(sha256) or n < 0:
        raise TopicError(f"blob {sha256[:70]!r} chunk {n} is not a SHA-256 and a number from 0")
    return f"{PREFIX}/{tenant_checked(tenant)}/{box_checked(box)}/blob/{sha256}/{n}"


def blobs_of(tenant: str, box: str) -> str:
    """The filter by which a box takes the chunks that are sent to it."""
    return f"{PREFIX}/{tenant_checked(tenant)}/{box_checked(box)}/blob/+/+"


def collector_state(tenant: str, collector: str) -> str:
    if not _COLLECTOR.fullmatch(collector):
        raise TopicError(f"collector {collector[:40]!r} is not 1 to 32 of a-z, 0-9 and '-'")
    return f"{PREFIX}/{tenant_checked(tenant)}/_collector/{collector}/state"


def collectors_of(tenant: str) -> str:
    """The filter by which a box follows every collector of its tenant."""
    return f"{PREFIX}/{tenant_checked(tenant)}/_collector/+/state"


def shared(tenant: str, name: str, share: str = SHARE) -> str:
    """The collectors' shared filter for topic `name` of all boxes of a tenant.  `share` is a name of their own, where a broker
    lets anybody join.
    """
    assert name in BY_NAME and BY_NAME[name].sender == "box" and not set(share) & set("/+#"), (name, share)
    return f"$share/{share}/{PREFIX}/{tenant_checked(tenant)}/+/{name}"


def enrol(code_id: str, way: Literal["ask", "answer"]) -> str:
    """`tb1/_enrol/{id}/ask`, `id` that of a one-use code."""
    if not _CODE.fullmatch(code_id):
        raise TopicError(f"code {code_id[:40]!r} is not six characters of Crockford's alphabet")
    return f"{PREFIX}/_enrol/{code_id}/{way}"


def enrol_shared(tenant: str, share: str = "") -> str:
    """The filter of a tenant's enrolment desks; each tenant has its own share, for the topic names none."""
    assert not set(share) & set("/+#"), share
    return f"$share/{share or f'enrol-{tenant_checked(tenant)}'}/{PREFIX}/_enrol/+/ask"


def enrol_parsed(topic: str) -> str:
    """The code's id in a topic where a box asks to be enrolled; TopicError for any other."""
    parts = topic.split("/")
    if len(parts) != 4 or parts[:2] != [PREFIX, "_enrol"] or parts[3] != "ask" or not _CODE.fullmatch(parts[2]):
        raise TopicError(f"{topic[:100]!r} is no place where a box asks to be enrolled")
    return parts[2]


def collector_parsed(topic: str) -> tuple[str, str]:
    """(tenant, collector) of a collector's state topic; TopicError for any other."""
    parts = topic.split("/")
    if len(parts) != 5 or parts[0] != PREFIX or parts[2] != "_collector" or parts[4] != "state":
        raise TopicError(f"{topic[:100]!r} is not the state of a collector")
    if not _COLLECTOR.fullmatch(parts[3]):
        raise TopicError(f"collector {parts[3][:40]!r} is not 1 to 32 of a-z, 0-9 and '-'")
    return tenant_checked(parts[1]), parts[3]


def box_parsed(topic: str) -> tuple[str, str, str]:
    """(tenant, box, name) of a box's topic; TopicError when it is none of the table's."""
    parts = topic.split("/", 3)
    if len(parts) != 4 or parts[0] != PREFIX:
        raise TopicError(f"{topic[:100]!r} does not begin with {PREFIX}/tenant/box/")
    tenant, box, name = tenant_checked(parts[1]), box_checked(parts[2]), parts[3]
    known = name in BY_NAME and BY_NAME[name].under == "box" and "{" not in name
    if not known and not re.fullmatch(r"blob/[0-9A-Za-z_-]{43,64}/[0-9]{1,9}", name):
        raise TopicError(f"{name[:60]!r} is no topic of a box")
    return tenant, box, name
