"""Configurations in the cloud: layers, checks before anything leaves, rings that stop by themselves, and a real box at the end."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import msgspec
import pytest

from device.errors import ConfigError
from device.mqtt import config_wire as wire
from device.mqtt import topics
from device.push.layers import Layers
from device.store_forward.es256 import public_verifier
from fleet.__main__ import main
from fleet.database import opened
from fleet.groups import SCHEMA as GROUPS
from fleet.groups import Groups, made
from fleet.keys import SigningKey
from fleet.push.config import SCHEMA, Configs
from fleet.push.layers import Layer, composed, differences, flat, given
from fleet.push.rollout import Gate, Tally, rings_of, verdict
from fleet.push.rollouts import Refused, Rollouts
from fleet.push.room import BlobRoom, config_room
from tests.pushed_box import Box

JWK = {"kty": "EC", "crv": "P-256", "x": "eA", "y": "eQ"}
PRICES = "gtin,name_zh,name_en,price_fen,unit,source\n"


def at(seconds: int) -> str:
    return f"2026-09-01T{10 + seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}+08:00"


# Layers, pure ----------------------------------------------------------------------------------------------------------------

def body_of(*layers: Layer) -> wire.Body:
    body, reasons = composed(layers, lambda layer, key: f"jwe of {layer.name}", lambda sha256: wire.Blob(sha256, 1))
    assert not reasons
    return body


def test_layers_lie_over_each_other_lists_replace_and_every_key_knows_where_it_came_from():
    body = body_of(Layer("all", 1, {"shop_zh": "店", "route": ["a", "b"], "printer": {"columns": 48, "kind": "usb"}}),
                   Layer("group:north", 1, {"route": ["c"], "printer": {"columns": 32}}), Layer("box:box-1", 1, {"lang": "en"}))
    assert body.set == {"shop_zh": "店", "route": ["c"], "printer": {"columns": 32, "kind": "usb"}, "lang": "en"}
    assert body.origin == {"shop_zh": "group:all", "route": "group:north", "printer.columns": "group:north",
                           "printer.kind": "group:all", "lang": "box"}


def test_a_blob_and_a_secret_come_from_the_upper_layer_that_has_one():
    body = body_of(Layer("all", 1, {"mqtt": {"password": {"sealed": True}}}, {"prices": "a" * 64}),
                   Layer("group:g", 1, {"mqtt": {"password": {"sealed": True}}}, {"prices": "b" * 64}))
    assert body.set == {"mqtt": {"password": {"jwe": "jwe of group:g"}}} and body.blobs["prices"].sha256 == "b" * 64
    assert body.origin == {"mqtt.password": "group:g", "blobs.prices": "group:g"}


def test_a_table_in_the_place_of_a_value_leaves_no_origin_of_what_is_gone():
    assert body_of(Layer("all", 1, {"a": 1}), Layer("group:g", 1, {"a": {"b": 2}})).origin == {"a.b": "group:g"}


def test_a_secret_that_was_never_sealed_to_a_box_is_a_reason():
    _, reasons = composed([Layer("all", 1, {"mqtt": {"password": {"sealed": True}}})], lambda layer, key: "", lambda sha256: None)
    assert reasons == ["mqtt.password of all was never sealed to this box's key: push that layer again"]


def test_secrets_of_a_file_are_parted_from_it_and_differences_never_show_them():
    text = '[mqtt]\nhost = "h"\npassword = "file:p"\n[channel.gateway]\nsecret = "s3"\n'
    told = given(text, {"p": "pass"}.__getitem__, which="x")
    assert told.secrets == {"mqtt.password": "pass", "channel.gateway.secret": "s3"}
    assert "s3" not in repr(told.set) and dict(flat(told.set))["mqtt.password"] == {"sealed": True}
    before, after = ({"mqtt": {"password": {"jwe": "old"}}}, {"mqtt": {"password": {"jwe": "new"}, "port": 1}})
    assert differences(wire.Body(before), wire.Body(after)) == [("mqtt.password", "***", "***", ""), ("mqtt.port", "-", "1", "")]


@pytest.mark.parametrize(("text", "why"), [("x = ", "not TOML"), ("a = " + "[" * 5_000 + "]" * 5_000, "nested without end"),
                                           (".".join("a" * 3_000) + " = 1", "nested without end"),
                                           ("#" * 200_000, "goes as a blob"), ("blobs = 3", "table of file names"),
                                           ('[mqtt]\npassword = "file:gone"', "cannot be read")])
def test_a_file_that_does_not_serve_is_refused_with_its_reasons(tmp_path, text, why):
    with pytest.raises(ConfigError, match=why):
        given(text, lambda name: (tmp_path / name).read_text(), which="x")


# Rings and the gate, pure ----------------------------------------------------------------------------------------------------

def tally(active: int = 0, failed: int = 0, silent: int = 0, waiting: int = 0) -> Tally:
    return Tally(active + failed + silent + waiting, active, failed, silent, waiting)


@pytest.mark.parametrize(("counts", "age_s", "last", "word"), [
    (tally(waiting=100), 10_000, False, "wait"), (tally(active=89, waiting=11), 10_000, False, "wait"),
    (tally(active=90, waiting=10), 599, False, "wait"), (tally(active=90, waiting=10), 600, False, "next"),
    (tally(active=95, failed=5), 600, False, "next"), (tally(active=94, failed=6), 0, False, "stop"),
    (tally(active=94, failed=3, silent=3), 0, False, "stop"), (tally(failed=1), 0, False, "stop"),
    (tally(active=1), 0, True, "done"), (tally(active=90, waiting=10), 0, True, "done"),
    (tally(active=89, waiting=11), 10_000, True, "wait"), (tally(active=94, silent=6), 10_000, True, "stop")])
def test_what_follows_from_the_counts(counts, age_s, last, word):
    assert verdict(counts, Gate(), age_s, last=last)[0] == word


def test_each_state_counts_where_it_belongs_and_only_silence_grows_old():
    told, gate = Tally(), Gate()
    for state in ("active", "rolled_back", "refused", "deferred", "staged", "trial", ""):
        told.count(state, 10_000 if state else gate.silent_s - 1, gate)
    told.count("", gate.silent_s, gate)
    assert msgspec.structs.astuple(told) == (8, 1, 3, 1, 3, 0)


def test_rings_take_their_percents_rounded_up_and_every_box_once():
    boxes = [f"box-{n}" for n in range(150)]
    rings = rings_of(boxes, (1, 10, 100), "salt")
    assert [len(ring) for ring in rings] == [2, 13, 135] and sorted(sum(rings, [])) == sorted(boxes)
    assert rings == rings_of(boxes[::-1], (1, 10, 100), "salt") and rings != rings_of(boxes, (1, 10, 100), "other")
    assert [len(ring) for ring in rings_of(boxes[:1], (1, 10, 100), "salt")] == [1]
    for wrong in ((), (10,), (10, 5, 100), (0, 100), (100, 100)):
        with pytest.raises(ValueError, match="rise"):
            rings_of(boxes, wrong, "salt")


# The cloud over a database, with a clock by hand -----------------------------------------------------------------------------

class Cloud:
    """The cloud's rooms; `boxes` are thin: they report what a test says of their newest document."""

    def __init__(self, folder: Path, *boxes: str, where: str = "") -> None:
        self.database = opened(where or str(folder / "cloud.db"))
        made(self.database, GROUPS, SCHEMA)
        self.rollouts, self.groups, self.key = Rollouts(self.database), Groups(self.database), SigningKey(folder / "config.pem")
        self.configs = self.rollouts.configs
        self.room = config_room(self.database, "shop", self.key)
        self.blobs = BlobRoom(self.database, "shop")
        with self.database.transaction():
            self.groups.put("north", boxes)
            for box in boxes:
                self.groups.heard(box, "", "0.1", at(0))

    def push(self, said: dict, when: int = 0, *, layer: str = "group:north", **more) -> str:
        with self.database.transaction():
            one = self.configs.put_layer(layer, said, more.pop("blobs", {}), "li", at(when))
            return self.rollouts.push(one, self.groups.boxes("north"), "li", at(when), **more)

    def leaves(self, when: int = 0) -> dict[str, wire.Desired]:
        """What the courier takes along now, by box."""
        with self.database.transaction():
            parcels = list(self.room(at(when)))
        assert all(parcel.retain for parcel in parcels)
        return {topics.box_parsed(parcel.topic)[1]: self.read(parcel.payload) for parcel in parcels}

    def read(self, token: bytes) -> wire.Desired:
        return wire.config_decoded(token, {self.key.kid: public_verifier(self.key.jwk)})

    def say(self, box: str, state: str, when: int = 0, **more) -> None:
        one = self.configs.issued(box)
        assert one is not None
        active = wire.Standing(one.epoch, one.version, one.digest) if state == "active" else wire.Standing()
        told = wire.Reported(one.epoch, one.version, one.digest, state, active=active, **more)
        with self.database.transaction():
            self.configs.take_report(box, told, at(when))

    def hello(self, box: str, session: str, when: int = 0) -> None:
        with self.database.transaction():
            self.groups.heard(box, session, "0.1", at(when))

    def rollout(self, id_: str):
        return self.rollouts.listed(id_)[0]


@pytest.fixture
def cloud(place, tmp_path):
    one = Cloud(tmp_path, *(f"box-{n:02d}" for n in range(20)), where=place())
    yield one
    one.database.close()


def test_each_box_gets_a_document_of_its_own_and_versions_rise(cloud):
    cloud.push({"shop_zh": "一"})
    first = cloud.leaves()
    assert len(first) == 20 and all(one.box == box and one.place == (0, 1) for box, one in first.items())
    for box in first:
        cloud.say(box, "active")
    cloud.leaves(1)
    cloud.push({"shop_zh": "二"}, 2)
    assert {one.place for one in cloud.leaves(3).values()} == {(0, 2)} and cloud.leaves(4) == {}


def test_a_version_rises_above_what_a_box_ever_told_also_after_the_cloud_lost_its_own(cloud):
    told = wire.Reported(2, 41, "a" * 64, "active", active=wire.Standing(2, 41, "a" * 64))
    with cloud.database.transaction():
        cloud.configs.take_report("box-00", told, at(0))
    assert cloud.configs.standing("box-00").word == "ahead"
    cloud.push({"shop_zh": "一"})
    assert cloud.leaves()["box-00"].place == (2, 42)


def test_a_document_is_published_again_to_a_box_that_says_hello_without_it(cloud):
    cloud.push({"shop_zh": "一"})
    cloud.leaves()
    cloud.hello("box-03", "s1", 5)
    assert list(cloud.leaves(6)) == ["box-03"] and cloud.leaves(7) == {}
    cloud.say("box-03", "staged")
    cloud.hello("box-03", "s2", 8)
    assert cloud.leaves(9) == {}, "it has it"


def test_rings_go_on_while_all_is_well_and_end_by_themselves(cloud):
    id_ = cloud.push({"shop_zh": "一"}, percents=(10, 50, 100), gate=Gate(soak_s=60))
    seen: list[int] = []
    for ring, when in enumerate((0, 100, 200), 1):
        fresh = cloud.leaves(when)
        seen.append(len(fresh))
        assert cloud.rollout(id_).ring == ring and cloud.leaves(when + 30) == {}
        for box in fresh:
            cloud.say(box, "active", when + 40)
        if ring < 3:
            assert cloud.leaves(when + 59) == {}, "it is watched for a while"
    assert seen == [2, 8, 10]
    cloud.leaves(300)
    assert cloud.rollout(id_).state == "done"


@pytest.mark.parametrize("state", ["rolled_back", "refused", "deferred", "silent"])
def test_a_poisonous_configuration_stops_by_itself_and_no_other_box_ever_sees_it(cloud, state):
    id_ = cloud.push({"shop_zh": "毒"}, percents=(10, 100), gate=Gate(soak_s=60, silent_s=120))
    first, second = cloud.leaves()
    if state != "silent":
        cloud.say(first, state)
    cloud.say(second, "active")
    assert cloud.leaves(200) == {} and cloud.rollout(id_).state == "stopped" and "5 %" in cloud.rollout(id_).why
    assert cloud.leaves(10_000) == {}
    assert cloud.configs.layer("group:north") is None, "what stopped is no part of what boxes are told next"


def test_shops_that_are_shut_stop_nothing_and_a_box_that_falls_silent_does(cloud):
    with cloud.database.transaction():
        for n in range(20):
            cloud.groups.status(f"box-{n:02d}", True, 7, 0)
        for n in range(15):
            cloud.groups.status(f"box-{n:02d}", False, 7, at_s(1))
        cloud.groups.status("box-19", False, 6, at_s(1))            # the late will of a connection before
    id_ = cloud.push({"shop_zh": "一"}, 5, gate=Gate(silent_s=60))
    cloud.leaves(6)
    for n in range(15, 19):
        cloud.say(f"box-{n}", "active", 7)
    cloud.leaves(50)
    assert cloud.rollout(id_).state == "running" and "15 away" in cloud.rollout(id_).why
    with cloud.database.transaction():
        cloud.groups.status("box-19", False, 7, at_s(52))
    cloud.leaves(70)
    assert cloud.rollout(id_).state == "stopped" and "1 are silent" in cloud.rollout(id_).why


def at_s(seconds: int) -> int:
    return int(datetime.datetime.fromisoformat(at(seconds)).timestamp())


def test_what_stopped_goes_on_only_by_a_persons_word_and_another_limit(cloud):
    id_ = cloud.push({"shop_zh": "一"}, percents=(10, 100), gate=Gate(soak_s=0))
    first, second = cloud.leaves()
    cloud.say(first, "refused")
    cloud.say(second, "active")
    cloud.leaves(1)
    with cloud.database.transaction():
        cloud.rollouts.resume(id_, 500, at(2))
    database = cloud.database
    database.execute("UPDATE rollout SET gate = replace(gate, '\"enough\":900', '\"enough\":500')")
    assert len(cloud.leaves(3)) == 18


def test_abort_with_undo_gives_released_boxes_what_they_had(cloud):
    cloud.push({"shop_zh": "旧"})
    for box in cloud.leaves():
        cloud.say(box, "active")
    cloud.leaves(1)
    id_ = cloud.push({"shop_zh": "新"}, 2, percents=(10, 100))
    released = cloud.leaves(3)
    with cloud.database.transaction():
        assert cloud.rollouts.abort(id_, "li", at(4), undo=True) == 2
    undone = cloud.leaves(5)
    assert undone.keys() == released.keys() and {one.body.set["shop_zh"] for one in undone.values()} == {"旧"}
    assert {one.version for one in undone.values()} == {3}


def test_the_way_of_a_configuration_on_either_database(tmp_path, place):
    """Two rings, a secret, a blob with its delta, a box that wants chunks, a stop, an undo: every statement is said once."""
    one = Cloud(tmp_path, "box-1", "box-2", where=place())
    configs, database = one.configs, one.database
    with database.transaction():
        for box in ("box-1", "box-2"):
            configs.put_key(box, JWK, box, at(0))
        configs.put_base("box-1", "", at(0))
        old, new = (configs.put_blob("prices", b"".join(b"%d\n" % (n * factor) for n in range(2000))) for factor in (1, 1))
        assert old == new
    one.push({"shop_zh": "一"}, blobs={"prices": old})
    for box in one.leaves():
        one.say(box, "staged", want={old: ((0, 0),)})
    with database.transaction():
        assert len(list(one.blobs(at(1)))) == 2 and list(one.blobs(at(2))) == []
    for box in ("box-1", "box-2"):
        one.say(box, "active", 3)
    one.leaves(4)
    with database.transaction():
        changed = configs.put_blob("prices", configs.blob_bytes(old).replace(b"\n77\n", b"\n78\n"))
        assert configs.put_deltas("prices", changed, ["box-1", "box-2"]) == 1
        layer = configs.put_layer("group:north", {"mqtt": {"password": {"sealed": True}}}, {"prices": changed}, "li", at(5))
        for box in ("box-1", "box-2"):
            configs.put_sealed(layer, "mqtt.password", box, "a..b.c.d")
        id_ = one.rollouts.push(layer, ["box-1", "box-2"], "li", at(5), percents=(50, 100))
    ((box, desired),) = one.leaves(6).items()
    assert len(desired.body.blobs["prices"].deltas) == 1 and configs.key("box-1") == JWK
    assert [one.n for one in configs.history("group:north")] == [2, 1]
    one.hello(box, "s1", 7)
    assert list(one.leaves(9)) == [box]
    one.say(box, "rolled_back", 10)
    one.leaves(11)
    assert one.rollout(id_).state == "stopped"
    with database.transaction():
        assert one.rollouts.abort(id_, "li", at(12), undo=True) == 1
    assert one.leaves(13)[box].body.blobs["prices"].sha256 == old and configs.standing(box).word == "silent"
    database.close()


def test_a_box_in_the_place_of_a_dead_one_gets_no_secret_that_it_cannot_open(cloud):
    with cloud.database.transaction():
        cloud.configs.put_key("box-00", JWK, "old", at(0))
        layer = cloud.configs.put_layer("box:box-00", {"mqtt": {"password": {"sealed": True}}}, {}, "li", at(0))
        cloud.configs.put_sealed(layer, "mqtt.password", "box-00", "a..b.c.d")
        assert cloud.configs.composed("box-00")[1] == []
        cloud.configs.put_key("box-00", {**JWK, "x": "eg"}, "new", at(1))
    assert "never sealed to this box's key" in cloud.configs.composed("box-00")[1][0]


def test_two_rollouts_never_meet_at_one_box(cloud):
    cloud.push({"shop_zh": "一"}, percents=(10, 100))
    with pytest.raises(Refused, match="is under way"):
        cloud.push({"shop_zh": "二"})
    assert cloud.configs.layer("group:north").set == {"shop_zh": "一"}, "the refused one left nothing"


@pytest.mark.parametrize(("said", "why"), [
    ({"shop_zhh": "x"}, "did you mean"), ({"printer": {"columns": "many"}}, "printer.columns"),
    ({"state_dir": "/tmp"}, "not the cloud's to say"), ({"record_key_file": "x"}, "not the cloud's to say"),
    ({"printer": {"kind": "file", "path": "/dev/x"}}, "device of the tests"),
    ({"mqtt": {"password": "plain"}}, "is a secret")])
def test_what_the_box_would_refuse_never_leaves(cloud, said, why):
    with pytest.raises(Refused) as caught:
        cloud.push(said | {"lang": "fr"})
    reasons = caught.value.reasons
    assert any(why in reason for reason in reasons) and any("lang" in reason for reason in reasons), reasons
    assert all(len(boxes) == 20 for boxes in reasons.values()) and cloud.leaves() == {} and not cloud.rollouts.listed()


@pytest.mark.parametrize(("more", "why"), [({"not_before": "tomorrow"}, "cannot be read"), ({}, "more than 65536")])
def test_what_no_document_can_be_made_of_is_refused_too(cloud, more, why):
    said = {} if more else {"template": [{"pattern": "21PPPPPVVVVVC", "kind": "weight", "prefixes": ["2" * 60] * 900}]}
    with pytest.raises(Refused, match=why):
        cloud.push(said, **more)


def test_what_has_no_sense_never_leaves(cloud):
    with pytest.raises(Refused, match="hears of no better configuration"):
        cloud.push({"mqtt": {"host": ""}})


def channel(url: str) -> dict:
    return {"channel": {"gateway": {"base_url": url, "terminal_id": "T1"}}}


def test_money_goes_elsewhere_only_by_a_persons_word_which_stays_until_the_box_has_heard_it(cloud):
    with pytest.raises(Refused, match="where money goes"):
        cloud.push(channel("https://pay.example"))
    cloud.push(channel("https://pay.example"), payee_change=True)
    assert all(one.body.payee_change for one in cloud.leaves().values())
    for n in range(20):
        cloud.say(f"box-{n:02d}", "active" if n else "staged", 1)
    cloud.leaves(2)
    with pytest.raises(Refused, match="channel.gateway.base_url changes where money goes"):
        cloud.push(channel("https://evil.example"))
    cloud.push({**channel("https://pay.example"), "shop_zh": "店"}, 3)
    assert {box for box, one in cloud.leaves(4).items() if one.body.payee_change} == {"box-00"}


def test_a_box_that_is_far_behind_its_desired_one_is_named_with_its_reasons(cloud):
    cloud.push({"shop_zh": "一"})
    cloud.leaves()
    cloud.say("box-00", "active")
    cloud.say("box-01", "refused", why="it has 2 faults", reasons=("a", "b"), refused=2)
    words = {box: cloud.configs.standing(box) for box in ("box-00", "box-01", "box-02")}
    assert [one.word for one in words.values()] == ["active", "refused", "silent"]
    assert words["box-01"].reasons == ("a", "b") and words["box-01"].refused == 2


# A real box at the other end -------------------------------------------------------------------------------------------------

def goods(count: int, price: int = 500) -> bytes:
    from device.goods import check_digit
    rows = []
    for n in range(count):
        stem = f"690{n:09d}"
        rows.append(f"{stem}{check_digit(stem)},商品{n},Goods {n},{price if n == 7 else 500},piece,test\n")
    return (PRICES + "".join(rows)).encode()


class Carried:
    """The cloud and one real pusher, the courier's parcels carried by hand."""

    def __init__(self, folder: Path, monkeypatch) -> None:
        self.cloud = Cloud(folder, "box-1")
        import tests.pushed_box as pushed
        monkeypatch.setattr(pushed, "KNOWN", {self.cloud.key.kid: public_verifier(self.cloud.key.jwk)})
        self.box = Box(folder)
        self.carried, self.seconds, self.told = 0, 0, 0
        with self.cloud.database.transaction():
            self.cloud.configs.put_base("box-1", self.box.toml.read_text(), at(0))

    def go(self, seconds: int) -> None:
        cloud, box = self.cloud, self.box
        for _ in range(seconds):
            self.seconds += 1
            with cloud.database.transaction():
                for told in box.reports[self.told:]:
                    cloud.configs.take_report("box-1", told, at(self.seconds))
                self.told = len(box.reports)
                parcels = [*cloud.room(at(self.seconds)), *cloud.blobs(at(self.seconds))]
            for parcel in parcels:
                self.carried += len(parcel.payload)
                name = topics.box_parsed(parcel.topic)[2]
                if name == "config/desired":
                    box.pusher.came(parcel.payload)
                else:
                    _, sha256, n = name.split("/")
                    box.pusher.chunk(sha256, int(n), parcel.payload)
            box.wait(1)


def test_a_price_book_of_50_000_goods_goes_out_in_chunks_and_a_change_of_one_price_as_a_delta(tmp_path, monkeypatch):
    shop = Carried(tmp_path, monkeypatch)
    configs, first = shop.cloud.configs, goods(50_000)
    with shop.cloud.database.transaction():
        layer = configs.put_layer("all", {}, {"prices": configs.put_blob("prices", first)}, "li", at(0))
        shop.cloud.rollouts.push(layer, ["box-1"], "li", at(0))
    shop.go(20)
    assert configs.standing("box-1").word == "active" and Path(shop.box.config.prices_file).read_bytes() == first
    whole, shop.carried = shop.carried, 0
    with shop.cloud.database.transaction():
        sha256 = configs.put_blob("prices", second := goods(50_000, price=501))
        assert configs.put_deltas("prices", sha256, ["box-1"]) == 1
        shop.cloud.rollouts.push(configs.put_layer("all", {}, {"prices": sha256}, "li", at(30)), ["box-1"], "li", at(30))
    shop.go(10)
    assert configs.standing("box-1").word == "active" and Path(shop.box.config.prices_file).read_bytes() == second
    assert len(first) < whole < 1.1 * len(first) and shop.carried < 4_000, (whole, shop.carried)
    shop.cloud.database.close()


def test_a_wrong_broker_undoes_itself_and_the_fleet_hears_of_it(tmp_path, monkeypatch):
    shop = Carried(tmp_path, monkeypatch)
    with shop.cloud.database.transaction():
        layer = shop.cloud.configs.put_layer("box:box-1", {"mqtt": {"host": "wrong.example"}}, {}, "li", at(0))
        id_ = shop.cloud.rollouts.push(layer, ["box-1"], "li", at(0))
    shop.go(3)
    shop.box.wait(700)
    shop.go(3)
    assert shop.cloud.configs.standing("box-1").word == "rolled_back" and shop.cloud.rollout(id_).state == "stopped"
    assert shop.box.config.mqtt.host == "old.example" and shop.cloud.configs.layer("box:box-1") is None
    shop.cloud.database.close()


def test_a_box_says_of_each_key_which_layer_of_the_cloud_gave_it(tmp_path, monkeypatch):
    shop = Carried(tmp_path, monkeypatch)
    configs = shop.cloud.configs
    with shop.cloud.database.transaction():
        configs.put_layer("all", {"shop_zh": "总店"}, {}, "li", at(0))
        layer = configs.put_layer("group:north", {"printer": {"columns": 32}}, {}, "li", at(0))
        shop.cloud.rollouts.push(layer, ["box-1"], "li", at(0))
    shop.go(5)
    layers = Layers(shop.box.toml.read_text(), which="box.toml")
    assert [layers.why(key) for key in ("shop_zh", "printer.columns", "mqtt.host")] == ["group:all", "group:north", "box.toml"]
    shop.cloud.database.close()


def test_chunks_leave_at_a_bounded_rate_to_boxes_whose_own_document_names_them(cloud):
    data = bytes(range(256)) * 4096                         # 1 MiB, 32 chunks
    with cloud.database.transaction():
        sha256, other = cloud.configs.put_blob("prices", data), cloud.configs.put_blob("prices", b"x" * 100)
    cloud.push({}, blobs={"prices": sha256})
    cloud.leaves()
    cloud.blobs = BlobRoom(cloud.database, "shop", rate_bytes_s=64 * 1024)
    for box in ("box-00", "box-01"):
        cloud.say(box, "staged", want={sha256: ((0, 31),), other: ((0, 0),)})
    sent = []
    for when in range(10):
        with cloud.database.transaction():
            sent.append([parcel.topic.split("/") for parcel in cloud.blobs(at(when))])
    assert all(len(some) <= 3 for some in sent[1:]) and 20 <= sum(map(len, sent)) <= 26
    assert {topic[4] for some in sent for topic in some} == {sha256}
    assert {topic[2] for topic in sent[0]} == {"box-00", "box-01"}, "each in its turn"


def test_a_box_that_wants_all_there_is_again_and_again_makes_nobody_wait(cloud):
    data = bytes(range(256)) * 65_536                       # 16 MiB, 512 chunks: the largest there is
    with cloud.database.transaction():
        sha256 = cloud.configs.put_blob("prices", data)
    cloud.push({}, blobs={"prices": sha256, "rules": sha256})
    cloud.leaves()
    cloud.blobs = BlobRoom(cloud.database, "shop", rate_bytes_s=128 * 1024)
    sent = []
    for when in range(20):
        cloud.say("box-00", "staged", want={sha256: ((0, 511),) * 60})       # greedy, and before the others
        if when == 1:
            cloud.say("box-01", "staged", want={sha256: ((0, 9),)})
        with cloud.database.transaction():
            sent += [parcel.topic.split("/")[2] for parcel in cloud.blobs(at(when))]
    assert sent.count("box-01") == 10 and sent.count("box-00") >= 50


def test_a_box_that_says_hello_while_the_clouds_clock_is_put_back_is_served(cloud):
    cloud.push({"shop_en": "Corner"})
    assert len(cloud.leaves(40_000)) == 20
    cloud.hello("box-03", "s2", 10)
    assert set(cloud.leaves(10)) == {"box-03"}


# The command line ------------------------------------------------------------------------------------------------------------

@pytest.fixture
def fleet(tmp_path, capsys):
    """`fleet(words, files)` runs tillfleet over one database; its exit status and lines."""
    def run(*words: str, **files: str) -> tuple[int, list[dict]]:
        for name, text in files.items():
            (tmp_path / name.replace("_", ".")).write_text(text)
        said = [str(tmp_path / word[1:]) if word.startswith("@") else word for word in words]
        tail = [] if words[0] == "group" else ["--json"]
        code = main([*said, "--store", str(tmp_path / "cloud.db"), *tail])
        out = capsys.readouterr()
        return code, [json.loads(line) for line in out.out.splitlines()] if tail else []
    assert run("group", "put", "north", "box-1", "box-2")[0] == 0
    return run


def test_push_status_diff_and_why_at_the_command_line(fleet):
    code, lines = fleet("config", "push", "@a.toml", "--group", "north", "--by", "li",
                        a_toml='shop_zh = "店"\n[printer]\ncolumns = 32\n')
    assert code == 0 and (lines[0]["state"], lines[0]["away"]) == ("running", 2)
    code, lines = fleet("config", "status")
    assert code == 1 and lines[-1] == {"boxes": 2, "drift": 2} and lines[0]["word"] == "silent"
    code, lines = fleet("config", "why", "box-1", "printer.columns")
    assert (lines[0]["value"], lines[0]["layer"], lines[0]["by"]) == (32, "group:north", "li")
    code, lines = fleet("config", "diff", "box-1", "@b.toml", b_toml="[printer]\ncolumns = 48\n")
    assert code == 0 and lines[0] == {"key": "printer.columns", "before": "32", "after": "48", "origin": "box"}
    assert fleet("config", "why", "box-1", "printer.columns")[1][0]["value"] == 32, "diff left nothing"


def test_a_push_that_is_refused_says_every_reason_at_once_and_leaves_nothing(fleet):
    code, lines = fleet("config", "push", "@a.toml", "--all", "--by", "li",
                        a_toml='shop_zhh = "x"\n[blobs]\nprices = "p.csv"\n', p_csv=PRICES + "1,a,b,0,piece,t\n")
    assert code == 1 and any("p.csv" in x["reason"] or "price_fen 0" in x["reason"] for x in lines)
    code, lines = fleet("config", "push", "@a.toml", "--group", "north", "--by", "li",
                        a_toml='shop_zhh = "x"\n[printer]\ncolums = 3\n')
    assert code == 1 and sum("did you mean" in x.get("reason", "") for x in lines) == 2 and lines[-1] == {"refused": 2}
    assert fleet("config", "rollout")[1] == []


def test_a_secret_goes_sealed_to_each_box_and_stands_nowhere_plain(fleet, tmp_path):
    from cryptography.hazmat.primitives.asymmetric import ec

    from device.mqtt.jwe_wire import jwe_decrypted
    from device.store_forward.token import b64
    keys = {}
    text = '[mqtt]\nhost = "h.example"\npassword = "the-canary-of-this-shop"\n'
    code, lines = fleet("config", "push", "@a.toml", "--group", "north", "--by", "li", a_toml=text)
    assert code == 1 and "no encryption key of box-1" in lines[0]["reason"]
    for box in ("box-1", "box-2"):
        keys[box] = ec.generate_private_key(ec.SECP256R1())
        point = keys[box].public_key().public_numbers()
        jwk = {"kty": "EC", "crv": "P-256", "x": b64(point.x.to_bytes(32, "big")), "y": b64(point.y.to_bytes(32, "big"))}
        assert fleet("config", "key", box, "@k.jwk", k_jwk=json.dumps(jwk))[0] == 0
    assert fleet("config", "push", "@a.toml", "--group", "north", "--by", "li", a_toml=text)[0] == 0
    database = opened(str(tmp_path / "cloud.db"))
    for box, key in keys.items():
        assert jwe_decrypted(Configs(database).issued(box).body.set["mqtt"]["password"]["jwe"], key) == b"the-canary-of-this-shop"
    database.close()
    assert not any(b"the-canary" in path.read_bytes() for path in tmp_path.glob("cloud.db*"))
    database = opened(str(tmp_path / "cloud.db"))
    assert fleet("config", "push", "@a.toml", "--group", "north", "--by", "li", a_toml='lang = "en"\n')[0] == 0
    code, lines = fleet("config", "push", "--back", "1", "--group", "north", "--by", "wang")
    assert code == 0 and lines[0]["n"] == 3, lines
    assert [x["state"] for x in fleet("config", "rollout")[1]].count("superseded") == 2
    again = Configs(database).issued("box-1").body.set
    assert jwe_decrypted(again["mqtt"]["password"]["jwe"], keys["box-1"]) == b"the-canary-of-this-shop" and "lang" not in again
    versions = fleet("config", "history", "group:north")[1]
    assert [(v["n"], v["by"], v["set"].get("mqtt.password")) for v in versions] == [
        (3, "wang", "***"), (2, "li", None), (1, "li", "***")]
    assert fleet("config", "push", "--back", "9", "--group", "north", "--by", "li")[0] == 2
    database.close()
    assert fleet("config", "why", "box-1", "mqtt.password")[1][0]["value"] == "***"


def test_box_toml_is_told_without_its_secrets_and_pushes_are_checked_against_it(fleet, tmp_path):
    base = ('box = "box-1"\nbox_no = "00000A"\ntenant = "t"\n[display]\nkind = "none"\n[mqtt]\nhost = "h"\n[channel.gateway]\n'
            'base_url = "https://pay.example"\nterminal_id = "T1"\nsecret = "the-canary-of-this-shop"\n')
    part = '[channel.gateway]\ngive_up_s = 120\n'
    code, lines = fleet("config", "push", "@a.toml", "--box", "box-1", "--by", "li", a_toml=part)
    assert code == 1 and any("tillfleet config base" in x.get("reason", "") for x in lines), lines
    assert fleet("config", "base", "box-1", "@b.toml", b_toml=base)[0] == 0
    code, lines = fleet("config", "push", "@a.toml", "--box", "box-1", "--by", "li", a_toml=part)
    assert code == 0, lines
    assert not any(b"the-canary" in path.read_bytes() for path in tmp_path.glob("cloud.db*"))
