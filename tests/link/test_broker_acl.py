"""Who may say and hear what, asked of a real Mosquitto with the very files that ship.  What is expected comes from the table of
topics, not from the list that the broker reads.
"""

from __future__ import annotations

import datetime
import os
import shutil
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from device.mqtt import topics, wire
from device.store_forward.es256 import public_verifier
from fleet import broker_files, line
from fleet.identity.ca import Authority
from fleet.keys import SigningKey
from fleet.records.collector import Collector
from fleet.records.store import Store
from sim.broker import MOSQUITTO, Broker, EnrolDoor
from tests.broker_peer import REFUSED, Peer, context
from tests.link.test_ca import request

pytestmark = pytest.mark.skipif(not (Path(MOSQUITTO).exists() or shutil.which("mosquitto")), reason="needs Mosquitto")

CARRIED = ("config/desired", "cmd", "blob/{sha256}/{n}")
BOXES, CODES = ("box-1", "box-2"), ("AB12CD", "XY34ZW")
END = "tb1/shop/{}/answer"                                   # a topic that a box hears: the last message of a round


class Site(NamedTuple):
    folder: Path
    authority: Authority
    broker: Broker
    door: EnrolDoor

    def peer(self, name: str, **how: str) -> Peer:
        return Peer(self.broker.port, context(self.folder / name), **how)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    authority = Authority.made(folder / "ca", "shop")
    authority.broker(["127.0.0.1"])
    for box in (*BOXES, "box-3"):
        authority.client(f"shop/{box}", folder / box, use="box")
    for collector in ("c1", "c2"):
        authority.client(f"shop/_collector/{collector}", folder / collector, use="collector")
    authority.client("shop/_courier/k1", folder / "k1", use="courier")
    with Broker(folder / "broker", authority=authority) as broker, EnrolDoor(broker) as door:
        yield Site(folder, authority, broker, door)


class Place(NamedTuple):
    """One concrete topic: a row of the table for one tenant and one box, collector or code."""

    topic: str
    row: topics.Topic
    tenant: str
    whose: str


def places() -> list[Place]:
    """Every row of the table for two boxes, a box nobody made, another tenant's box of the same name, two collectors, two codes."""
    found = []
    for row in topics.TOPICS:
        name = row.name.replace("{sha256}", "a" * 64).replace("{n}", "0")
        if row.under == "box":
            found += [Place(f"tb1/{tenant}/{box}/{name}", row, tenant, box)
                      for tenant, box in (("shop", "box-1"), ("shop", "box-2"), ("shop", "box-9"), ("other", "box-1"))]
        elif row.under == "tenant":
            found += [Place(f"tb1/{tenant}/{name.replace('{id}', one)}", row, tenant, one)
                      for tenant, one in (("shop", "c1"), ("shop", "c2"), ("other", "c1"))]
        else:
            found += [Place(f"tb1/{name.replace('{id}', code)}", row, "", code) for code in CODES]
    return found


def may_say(who: str, place: Place) -> bool:
    if who.startswith("box"):
        return (place.row.sender, place.row.under, place.tenant, place.whose) == ("box", "box", "shop", who)
    if (who == "k1") != (place.row.name in CARRIED):
        return False                         # the courier holds the keys that boxes obey, collectors none of them
    mine = {"box": place.tenant == "shop", "tenant": (place.tenant, place.whose) == ("shop", who), "enrol": True}
    return place.row.sender == "cloud" and mine[place.row.under]


def may_hear(who: str, place: Place) -> bool:
    if place.row.under == "tenant":
        return place.tenant == "shop"                        # whether a collector is up is for everyone of its tenant
    if who.startswith("box"):
        return (place.row.reader, place.row.under, place.tenant, place.whose) == ("box", "box", "shop", who)
    return who != "k1" and place.row.reader == "cloud" and (place.tenant == "shop" or place.row.under == "enrol")


@pytest.mark.parametrize("who", [*BOXES, "c1", "c2", "k1"])
def test_each_says_only_what_is_its_own_to_say(site: Site, who: str) -> None:
    peer, everywhere = site.peer(who), places()
    try:
        codes = peer.say(*[(place.topic, b"x") for place in everywhere])
        allowed = [place.topic for place, code in zip(everywhere, codes, strict=True) if code != REFUSED]
        assert allowed == [place.topic for place in everywhere if may_say(who, place)]
        stray = ("tb1", "tb1/shop", "tb1/shop/box-1", "tb1/shop/box-1/new", "tb1/shop/box-1/up/x", "tb1//box-1/up", "x", "/",
                 "$SYS/broker/uptime", "$share/collect/tb1/shop/box-1/up", "tb1/shop/box-1/config", "tb2/shop/box-1/up")
        assert set(peer.say(*[(topic, b"x") for topic in stray])) == {REFUSED}
    finally:
        peer.close()


def test_each_hears_only_what_is_its_own_to_hear(site: Site) -> None:
    """Every place is spoken to by somebody who may, or the round would prove nothing; each listener asks for all there is."""
    everywhere, peers = places(), {who: site.peer(who) for who in (*BOXES, "c1", "c2", "k1")}
    stranger = Peer(site.door.port, context(site.folder, site.authority.folder / "ca.pem"), user=CODES[0])
    try:
        for peer in peers.values():
            peer.follow("#", "+/#", "tb1/#", "tb1/+/+/#", "$SYS/#", *[place.topic for place in everywhere])
        spoken = set()
        for who, peer in peers.items():
            mine = [place.topic for place in everywhere if may_say(who, place)]
            peer.say(*[(topic, b"x") for topic in mine])
            spoken |= set(mine)
        stranger.say((f"tb1/_enrol/{CODES[0]}/ask", b"x"))
        heard: dict[str, set[str]] = {}
        for who, peer in peers.items():
            if who.startswith("box"):
                peers["c1"].say((END.format(who), b"end"))
                came = peer.heard
                heard[who] = set()
                while (one := came.get(timeout=10)) != (END.format(who), b"end"):
                    heard[who].add(one[0])
        for who in ("c1", "c2", "k1"):
            heard[who], wanted = set(), {f"tb1/_enrol/{CODES[0]}/ask", "tb1/shop/_collector/c2/state"} if who != "k1" else \
                {"tb1/shop/_collector/c1/state", "tb1/shop/_collector/c2/state"}
            while not wanted <= heard[who]:
                heard[who].add(peers[who].heard.get(timeout=10)[0])
        spoken.add(f"tb1/_enrol/{CODES[0]}/ask")
        for who in peers:
            assert heard[who] == {place.topic for place in everywhere if may_hear(who, place)} & spoken, who
        assert {place.row.name for place in everywhere if place.topic in spoken} == set(topics.BY_NAME)
    finally:
        for peer in (*peers.values(), stranger):
            peer.close()


def test_nothing_is_left_behind_for_another(site: Site) -> None:
    """Retained garbage: what a box may not say is not kept either, and what is kept is not told to whom it is not for."""
    one, cloud, courier = site.peer("box-1"), site.peer("c1"), site.peer("k1")
    others = [f"tb1/shop/box-2/{t.name}" for t in topics.TOPICS if t.under == "box" and "{" not in t.name]
    others += ["tb1/shop/_collector/c1/state", "tb1/shop/_collector/c9/state", "tb1/_enrol/AB12CD/answer"]
    assert set(one.say(*[(topic, b"garbage") for topic in others], retain=True)) == {REFUSED}
    courier.say(("tb1/shop/box-2/config/desired", b"for box-2"), ("tb1/shop/box-1/config/desired", b"for box-1"), retain=True)
    late = site.peer("box-2")
    try:
        late.follow("#")
        cloud.say((END.format("box-2"), b""))
        came = late.hears(END.format("box-2"))
        assert ("tb1/shop/box-2/config/desired", b"for box-2") in came
        assert not [topic for topic, payload in came if payload == b"garbage" or "box-1" in topic]
        courier.say(("tb1/shop/box-2/config/desired", b""), ("tb1/shop/box-1/config/desired", b""), retain=True)
    finally:
        for peer in (one, cloud, courier, late):
            peer.close()


def test_a_box_cannot_speak_under_another_boxes_session(site: Site) -> None:
    """The certificate's name is the client's, whatever it calls itself: no session is taken over."""
    one, other = site.peer("box-1"), site.peer("box-2", client_id="shop/box-1")
    try:
        assert one.say(("tb1/shop/box-1/up", b"x")) != [REFUSED] and one.there
        assert other.say(("tb1/shop/box-1/up", b"x")) == [REFUSED]
        again = site.peer("box-2")
        assert other.gone and one.there                      # it was known as itself
        again.close()
    finally:
        one.close()
        other.close()


def test_a_box_cannot_swallow_what_the_collectors_share(site: Site) -> None:
    """Mosquitto lets anyone join a shared subscription and drops that one's part: so its name is the collectors' secret."""
    own = site.folder / "c1"
    store = Store(str(site.folder / "store.db"), [])
    collector = Collector(store, "127.0.0.1", site.broker.port, "shop", SigningKey(site.authority.folder / "ack.pem"),
                          dress=line.dressed(own), share=line.share_of(own))
    thief, box = site.peer("box-2"), site.peer("box-1")
    try:
        box.follow("tb1/shop/box-1/ack", "tb1/shop/_collector/c1/state")
        collector.start()
        while b'"up"' not in box.heard.get(timeout=10)[1]:
            pass
        thief.follow(topics.shared("shop", "up"), "$share/collect-/tb1/shop/+/up", "tb1/shop/+/up")
        thief.follow_unchecked("$share/+/tb1/shop/+/up", "$share/#", "$share//tb1/shop/+/up")
        box.say(*[("tb1/shop/box-1/up", b"%d" % n) for n in range(20)])
        verdicts = [wire.ack_decoded(box.heard.get(timeout=10)[1], {key.kid: public_verifier(key.jwk)}).verdict
                    for key in [SigningKey(site.authority.folder / "ack.pem")] for _ in range(20)]
        assert verdicts == ["unreadable"] * 20               # each of them came, and was answered
        assert thief.heard.empty()
    finally:
        thief.close()
        box.close()
        collector.stop()
        store.close()


def test_the_limits_are_told_and_kept(site: Site) -> None:
    peer, cloud = site.peer("box-1"), site.peer("c1")
    try:
        assert peer.connack.MaximumPacketSize >= wire.PACKET_MAX_BYTES + 1024
        assert peer.connack.ReceiveMaximum == 32 and not getattr(peer.connack, "TopicAliasMaximum", 0)
        cloud.follow("tb1/shop/+/up")
        longest = b"x" * wire.PACKET_MAX_BYTES
        peer.say(("tb1/shop/box-1/up", longest))
        assert cloud.heard.get(timeout=10)[1] == longest
        peer._client.publish("tb1/shop/box-1/up", b"x" * peer.connack.MaximumPacketSize, qos=1)
        assert peer.gone
    finally:
        peer.close()
        cloud.close()


# Who gets in at all ------------------------------------------------------------------------------------------------

def refused(port: int, tls: ssl.SSLContext) -> str:
    """Why the broker ends a connection that tries to speak MQTT; fails when it answers."""
    connect = b"\x10\x10\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x03any"
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain, \
                tls.wrap_socket(plain, server_hostname="127.0.0.1") as line:
            line.sendall(connect)
            answer = line.recv(1024)
    except (ssl.SSLError, ConnectionError) as why:
        return str(why)
    assert not answer, "the broker answered"
    return "ended"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_only_tls_1_3_is_spoken(site: Site) -> None:
    for port in (site.broker.port, site.door.port):
        for newest in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1):
            assert "PROTOCOL_VERSION" in refused(port, context(site.folder / "box-1", newest=newest)), newest
    with pytest.raises(AssertionError, match="answered"):    # the same words over the right TLS are answered
        refused(site.broker.port, context(site.folder / "box-1"))


def test_without_a_valid_certificate_of_this_authority_nobody_speaks(site: Site, tmp_path: Path) -> None:
    root = site.authority.folder / "ca.pem"
    foreign = Authority.made(tmp_path / "foreign", "shop")
    foreign.client("shop/box-1", tmp_path / "theirs", use="box")
    self_made = Authority.made(tmp_path / "self", "shop").folder
    (tmp_path / "self" / "tls.pem").write_bytes((self_made / "ca.pem").read_bytes())
    (tmp_path / "self" / "tls.key").write_bytes((self_made / "ca.key").read_bytes())
    server = tmp_path / "server"
    server.mkdir()
    shutil.copy(site.authority.folder / "broker.key", server / "tls.key")
    shutil.copy(site.authority.folder / "broker.pem", server / "tls.pem")
    for what in ("nothing", "theirs", "self", "server"):
        assert "answered" not in refused(site.broker.port, context(tmp_path / what, root)), what


def test_the_certificate_of_another_key_of_a_box_opens_no_line(site: Site, tmp_path: Path) -> None:
    SigningKey(tmp_path / "tls.key")
    key = load_pem_private_key((tmp_path / "tls.key").read_bytes(), None)
    for use in ("record", "box"):
        (tmp_path / "tls.pem").write_bytes(site.authority.issue(request("shop/box-1", key), "shop/box-1", use=use))
        tls = context(tmp_path, site.authority.folder / "ca.pem")
        if use == "record":
            assert refused(site.broker.port, tls)
        else:
            Peer(site.broker.port, tls).close()              # the same key, for the line: so it was the purpose


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    past = Authority.made(tmp_path / "ca", "shop", now=lambda: now - datetime.timedelta(days=300))
    past.client("shop/box-1", tmp_path / "old", use="box", days=299)
    past.client("shop/box-2", tmp_path / "new", use="box", days=365)
    authority = Authority(tmp_path / "ca")
    authority.broker(["127.0.0.1"])
    with Broker(tmp_path / "broker", authority=authority) as broker:
        assert refused(broker.port, context(tmp_path / "old"))
        Peer(broker.port, context(tmp_path / "new")).close()


def test_a_broker_whose_list_is_over_lets_nobody_in(tmp_path: Path) -> None:
    """So `tillfleet ca list` warns 60 days before, and each refresh makes a new one in time."""
    now = datetime.datetime.now(datetime.UTC)
    past = Authority.made(tmp_path / "ca", "shop", now=lambda: now - datetime.timedelta(days=401))
    Authority(tmp_path / "ca").broker(["127.0.0.1"])
    past.client("shop/box-1", tmp_path / "box", use="box", days=500)
    with Broker(tmp_path / "broker", authority=past) as broker:
        assert refused(broker.port, context(tmp_path / "box"))
        broker.stop()
        broker.authority = Authority(tmp_path / "ca")
        broker.start()
        Peer(broker.port, context(tmp_path / "box")).close()


def test_a_revoked_box_is_out_at_the_next_reload_and_a_standing_line_falls_silent(site: Site) -> None:
    before, cloud, watch = site.peer("box-3"), site.peer("c1"), site.peer("box-1")
    try:
        assert before.say(("tb1/shop/box-3/up", b"x")) != [REFUSED]
        before.follow("tb1/shop/box-3/ack")
        site.authority.revoke("shop/box-3")
        Peer(site.broker.port, context(site.folder / "box-3"), client_id="again").close()        # nobody has told the broker yet
        standing = site.peer("box-3")
        standing.follow("tb1/shop/box-3/ack")
        site.broker.refresh()
        watch.follow(*["tb1/shop/box-1/ack"] * 2)            # a round trip: the signal was seen before this was answered
        for _ in range(50):
            if standing.say(("tb1/shop/box-3/up", b"x")) == [REFUSED]:
                break
        else:
            raise AssertionError("the standing line still speaks")
        assert refused(site.broker.port, context(site.folder / "box-3"))
        cloud.say(("tb1/shop/box-3/ack", b"secret"), ("tb1/shop/box-1/ack", b"fine"))
        assert watch.heard.get(timeout=10) == ("tb1/shop/box-1/ack", b"fine") and standing.heard.empty()
        site.authority.client("shop/box-3", site.folder / "box-3", use="box")                    # enrolled anew
        site.broker.refresh()
        for _ in range(50):
            fresh = site.peer("box-3")
            said = fresh.say(("tb1/shop/box-3/up", b"x"))
            fresh.close()
            if said != [REFUSED]:
                break
        else:
            raise AssertionError("a box that was enrolled anew is still shut out")
    finally:
        for peer in (before, standing, cloud, watch):
            peer.close()


# The door of boxes without a certificate -----------------------------------------------------------------------------

def test_a_code_opens_its_own_two_topics_and_nothing_else(site: Site) -> None:
    tls = context(site.folder, site.authority.folder / "ca.pem")
    stranger, desk = Peer(site.door.port, tls, user=CODES[0]), site.peer("c1")
    own = {f"tb1/_enrol/{CODES[0]}/ask"}
    try:
        desk.follow(topics.enrol_shared("shop"))
        stranger.follow("#", "tb1/#", f"tb1/_enrol/{CODES[0]}/answer", f"tb1/_enrol/{CODES[1]}/answer")
        everywhere = [place.topic for place in places()]
        codes = stranger.say(*[(topic, b"please") for topic in everywhere])
        assert {topic for topic, code in zip(everywhere, codes, strict=True) if code != REFUSED} == own
        assert desk.heard.get(timeout=10) == (f"tb1/_enrol/{CODES[0]}/ask", b"please")
        answer = b"x" * 32 * 1024
        desk.say((f"tb1/_enrol/{CODES[1]}/answer", b"for another"), (f"tb1/_enrol/{CODES[0]}/answer", answer))
        assert stranger.heard.get(timeout=10) == (f"tb1/_enrol/{CODES[0]}/answer", answer)
        stranger._client.publish(f"tb1/_enrol/{CODES[0]}/ask", b"x" * 40_000, qos=1)
        assert stranger.gone
    finally:
        stranger.close()
        desk.close()


@pytest.mark.parametrize("user", [None, "#", "+", "AB12CD/#"])
def test_at_the_door_a_name_without_a_code_says_nothing(site: Site, user: str | None) -> None:
    tls = context(site.folder, site.authority.folder / "ca.pem")
    try:
        stranger = Peer(site.door.port, tls, user=user)
    except ConnectionError:
        return
    codes = stranger.say(*[(place.topic, b"x") for place in places()])
    stranger.close()
    assert set(codes) == {REFUSED}


def test_nothing_else_listens(site: Site) -> None:
    """A setting on the wrong line makes Mosquitto open port 1883 to the world, without TLS and without a word."""
    for broker in (site.broker, site.door):
        assert broker._process is not None
        assert listening(broker._process.pid) == {("127.0.0.1", broker.port)}


def listening(pid: int) -> set[tuple[str, int]]:
    held = {os.readlink(one) for one in Path(f"/proc/{pid}/fd").iterdir()}
    found = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for row in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = row.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in held:
                host, port = local.split(":")
                words = b"".join(bytes.fromhex(host[at:at + 8])[::-1] for at in range(0, len(host), 8))
                found.add((socket.inet_ntop(family, words), int(port, 16)))
    return found


def test_what_ships_is_what_ran(site: Site) -> None:
    """Only ports, paths and the user are this machine's."""
    shipped = (broker_files.SHIPPED / "mosquitto.conf").read_text().splitlines()
    ran = (site.folder / "broker" / "mosquitto.conf").read_text().splitlines()
    assert [line for line, wanted in zip(ran, shipped, strict=True) if line != wanted and "@" not in wanted] == []
    assert os.stat(site.folder / "broker").st_mode & 0o7777 == 0o2750            # files of a refresh belong to Mosquitto's group
    assert (site.folder / "broker" / "acl").read_text().startswith((broker_files.SHIPPED / "acl").read_text())
