"""A configuration is pushed: taken between customers, kept when the cloud answers under it, and undone by itself when not."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import msgspec
import pytest

from device.mqtt import config_wire as wire
from device.push.pusher import TRIAL_MS
from device.txn.effects import TakeConfig
from device.txn.inputs import ConfigSaid
from tests.pushed_box import KEY, Box, Cuts, Key, PowerCut, doc

POISON = {"mqtt": {"host": "nowhere.example"}}
TRIAL_S = TRIAL_MS / 1000


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


# -- the good way -----------------------------------------------------------------------------------------------------

def test_a_good_configuration_is_tried_after_a_restart_and_kept_when_the_cloud_answers_under_it(box: Box):
    token = box.push(doc(1))
    box.wait(3)
    assert (box.starts, box.columns) == (2, 32)
    assert (box.report.state, box.report.version, box.report.active.digest) == ("active", 1, wire.digest_of(token))
    box.start()
    assert box.columns == 32 and box.pusher.standing == "0.1"
    assert [said.state for said in box.said] == [] and box.report.state == "active"


def test_nothing_is_taken_while_a_customer_stands_there(box: Box):
    box.busy = True
    box.push(doc(1))
    box.wait(900)
    assert box.starts == 1 and box.report.state == "staged"
    box.busy = False
    box.wait(3)
    assert box.starts == 2 and box.columns == 32


def test_a_customer_who_comes_in_the_last_moment_is_waited_for(box: Box):
    box.push(doc(1))
    answer = asyncio.run(busy_do(box))
    assert answer.waits and box.report.state == "staged" and not box.again


async def busy_do(box: Box) -> ConfigSaid:
    box.busy = True
    answer = await box.pusher.do(TakeConfig(box.report.digest))
    assert isinstance(answer, ConfigSaid)
    return answer


def test_what_needs_no_restart_is_taken_at_once_on_a_new_connection(box: Box):
    box.push(doc(1, {"shop_en": "Corner Shop 2"}))
    box.wait(3)
    assert box.starts == 1 and [config.shop_en for config in box.taken] == ["Corner Shop 2"]
    assert box.report.state == "active"
    assert [said.state for said in box.said if said.n] == ["trial", "active"]


def test_a_trial_begins_only_when_the_cloud_answered_a_moment_ago(box: Box):
    box.network()
    box.push(doc(1))                               # it came, and the line went
    box.wait(300)
    assert box.starts == 1 and box.report.state == "staged"
    box.network("old.example")
    box.wait(3)
    assert box.starts == 2 and box.report.state == "active"


def test_a_quiet_line_is_greeted_for_an_answer(box: Box):
    box.wait(300)
    box.push(doc(1))
    box.wait(3)
    assert box.greeted == 1 and box.report.state == "active"


def test_only_a_record_signed_since_on_a_connection_made_since_proves_a_trial(box: Box):
    """Words of the cloud that were kept back and come now are signed, too."""
    box.push(doc(1, POISON))
    box.wait(3)
    old = box.pusher._proof_seq - 1
    box.pusher.heard(old + 1)                      # without a line
    box.pusher.linked(True)
    box.pusher.heard(old)                          # of a record before the trial
    assert box.report.state == "trial"
    box.pusher.heard(old + 1)
    assert box.report.state == "active"


@pytest.mark.parametrize("over", [False, True])
def test_the_process_that_is_about_to_end_proves_nothing_of_what_comes_after_it(box: Box, over: bool):
    """Its line stands, and the cloud goes on confirming records of this boot, until the last moment."""
    box.push(doc(1, POISON))
    box.pusher.step()
    if over:
        box.wait(3)
        box.wait(TRIAL_S - 4)
        box._ms += 5_000
        box.pusher.step()
        box.pusher.linked(True)
    asyncio.run(box.pusher.do(TakeConfig(box.report.digest)))
    assert box.again
    phase = box.layers.store.state.phase
    box.pusher.heard(box.seq + 5)
    box.pusher.step()
    assert box.layers.store.state.phase == phase == ("fallback" if over else "trial")
    box.again = False
    box.start()
    assert (box.config.mqtt.host == "nowhere.example") is not over


# -- the poisonous one ------------------------------------------------------------------------------------------------

def test_a_wrong_broker_undoes_itself_within_its_deadline(box: Box):
    box.push(doc(1, POISON))
    box.wait(3)
    assert box.config.mqtt.host == "nowhere.example" and box.layers.store.state.phase == "trial"
    box.wait(TRIAL_S - 10)
    assert box.config.mqtt.host == "nowhere.example"
    box.wait(15)
    assert box.config.mqtt.host == "old.example"
    assert (box.report.state, box.report.active.version) == ("rolled_back", 0)
    assert box.reports[-1].state == "rolled_back"


def test_what_was_rolled_back_is_not_tried_again_until_it_is_issued_anew(box: Box):
    token = box.push(doc(1, POISON))
    box.wait(TRIAL_S + 20)
    starts = box.starts
    box.push(token)
    box.wait(100)
    assert box.starts == starts and box.report.state == "rolled_back" and box.report.refused == 0
    box.reach.add("nowhere.example")
    box.push(doc(2, POISON))
    box.wait(5)
    assert box.report.state == "active" and box.config.mqtt.host == "nowhere.example"


def test_when_the_old_one_does_not_reach_the_cloud_either_it_is_put_off_and_tried_again(box: Box):
    box.push(doc(1))
    box.pusher.step()
    box.reach = set()                              # an outage begins with the trial
    box.wait(TRIAL_S + 20)
    assert box.layers.store.state.phase == "fallback" and box.columns == 48
    box.wait(TRIAL_S + 20)
    assert box.report.state == "deferred" and box.columns == 48
    box.network("old.example")
    box.wait(5)
    assert box.report.state == "active" and box.columns == 32


def test_two_unforeseen_boots_are_borne_and_the_third_takes_it_back(box: Box):
    box.push(doc(1, POISON))
    box.wait(3)
    for _ in range(2):
        box.start()
        assert box.config.mqtt.host == "nowhere.example"
    box.start()
    assert box.config.mqtt.host == "old.example"
    box.wait(1)
    assert box.report.state == "rolled_back"


def test_a_trials_time_goes_on_over_a_boot(box: Box):
    box.push(doc(1, POISON))
    box.wait(400)
    box.start()
    box.wait(TRIAL_S - 400 + 40)
    assert box.config.mqtt.host == "old.example" and box.report.state == "rolled_back"


def test_the_way_back_waits_for_the_customer_too(box: Box):
    box.push(doc(1, POISON))
    box.wait(3)
    box.busy = True
    box.wait(TRIAL_S + 300)
    assert box.config.mqtt.host == "nowhere.example"
    box.busy = False
    box.wait(3)
    assert box.config.mqtt.host == "old.example"


def test_a_newer_document_waits_behind_a_trial(box: Box):
    box.push(doc(1, POISON))
    box.wait(3)
    box.push(doc(2))
    box.wait(TRIAL_S + 30)
    assert box.columns == 32 and box.config.mqtt.host == "old.example"
    assert (box.report.state, box.report.version) == ("active", 2)


@pytest.mark.parametrize("poison", [False, True])
def test_a_power_cut_at_any_step_leaves_one_or_the_other_and_ends_well(tmp_path: Path, monkeypatch, poison: bool):
    """Power is cut at the first, second, third ... step on the disk, until a run has no step left to cut."""
    told = POISON if poison else {"printer": {"columns": 32}}
    token = wire.config_encoded(doc(1, told), KEY.kid, KEY.sign)
    nth, ends = 0, set()
    while True:
        nth += 1
        (folder := tmp_path / str(nth)).mkdir()
        box = Box(folder)
        with monkeypatch.context() as patch:
            Cuts(patch, nth)
            try:
                box.push(token)
                box.wait(3)
                box.wait(TRIAL_S + 15 if poison else 1, every_ms=150_000)
                cut = False
            except PowerCut:
                cut = True
        if cut:
            box.start()                            # it is whole whatever the cut left
            box.push(token)                        # retained: the broker sends it at each connection
            box.wait(3)
            box.wait(2 * TRIAL_S + 40, every_ms=150_000)
        ends.add((box.report.state, box.config.mqtt.host, box.columns))
        if not cut:
            break
    assert nth > 20, "cut so often"
    assert ends == {("rolled_back", "old.example", 48)} if poison else {("active", "old.example", 32)}


# -- what is refused --------------------------------------------------------------------------------------------------

def test_a_word_that_a_cut_kept_from_the_journal_is_said_again_and_recorded_once(box: Box):
    box.push(doc(1))
    box.flushes = False                                      # within its second the journal has none of it
    box.wait(30)
    assert (box.report.state, box.tale) == ("active", [])
    box.push(doc(2, {"display": {"knd": "none"}}))           # and the next document is behind it
    box.push(doc(3, {"printer": {"columns": 40}}))
    box.start()                                              # the power went
    box.flushes = True
    box.wait(30)
    assert box.tale == [(1, "trial"), (1, "active"), (2, "refused"), (3, "trial"), (3, "active")]
    box.start()
    box.wait(2)
    assert len(box.kept) == 5 and not box.layers.store.state.unsaid


def test_a_word_that_a_cut_took_is_said_by_the_start_and_not_by_the_next_document_alone(box: Box):
    box.push(doc(1))
    box.flushes = False
    box.wait(30)
    box.start()
    box.flushes = True
    box.wait(2)
    assert box.tale == [(1, "trial"), (1, "active")]


def test_a_number_is_not_given_twice_when_the_folder_is_emptied(box: Box):
    box.push(doc(1))
    box.wait(30)
    shutil.rmtree(box.state / "config")
    box.start()
    box.push(doc(2, {"printer": {"columns": 40}}))
    box.wait(30)
    assert box.tale == [(1, "trial"), (1, "active"), (2, "trial"), (2, "active")]


def test_versions_rise_and_the_mark_outlives_the_folder(box: Box):
    old = box.push(doc(1))
    box.wait(3)
    box.push(doc(2, {"printer": {"columns": 42}}))
    box.wait(3)
    for replay in (old, wire.config_encoded(doc(2, {"printer": {"columns": 64}}), KEY.kid, KEY.sign)):
        before = box.report.refused
        box.push(replay)
        box.wait(3)
        assert box.report.refused == before + 1 and box.columns == 42
    for path in sorted((box.state / "config").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    box.start()
    assert box.columns == 48
    box.push(old)
    box.wait(3)
    assert box.columns == 48 and box.report.refused == 1
    box.push(doc(1, epoch=1))                      # the cloud starts a new line
    box.wait(3)
    assert box.columns == 32


def test_the_same_version_again_is_nothing(box: Box):
    token = box.push(doc(1))
    box.wait(3)
    starts, reports = box.starts, len(box.reports)
    box.push(token)
    box.wait(3)
    assert box.starts == starts and box.report.refused == 0 and len(box.reports) > reports


def test_expiry_is_judged_under_a_clock_that_can_be_trusted_alone(box: Box):
    box.clk = "restored"
    box.push(doc(1, expires="2020-01-01T00:00:00Z"))
    assert box.report.state == "staged"
    box.clk = "anchored"
    box.wait(3)
    assert box.report.state == "refused" and "expired" in box.report.why and box.starts == 1
    box.push(doc(2, expires="2020-01-01T00:00:00Z"))
    assert box.report.state == "refused" and box.columns == 48


def test_a_document_waits_for_its_time(box: Box):
    box.push(doc(1, not_before="2026-07-14T10:00:00+08:00"))
    box.wait(10)
    assert box.report.state == "staged" and "10:00" in box.report.why
    box.wall, box.clk = "2026-07-14T10:00:01+08:00", "unset"
    box.wait(3)
    assert box.report.state == "staged" and "trusted" in box.report.why
    box.clk = "ntp"
    box.wait(3)
    assert box.report.state == "active"


def test_every_reason_is_told_at_once(box: Box):
    box.push(doc(1, {"printer": {"colums": 32, "baud": 1, "logo": "/etc/passwd"}, "sound": {"voice_dir": "/"},
                     "box": "box-2", "state_dir": "/tmp", "prices_file": "x.csv",
                     "merchant_keys_on_box": True, "display": {"kind": "file"}, "scanner": {"path": "/etc/passwd"},
                     "mqtt": {"host": "", "password": "plain", "ca_file": "/etc/x.pem"},
                     "channel": {"gateway": {"base_url": "http://127.0.0.1:1", "private_key_file": "../../x"}}}))
    told = box.report
    assert told.state == "refused"
    for piece in ("did you mean printer.columns", "printer.baud is 1", "box is not the cloud's", "state_dir is not",
                  "printer.logo names a file", "sound.voice_dir is not",
                  "blobs.prices", "merchant_keys_on_box is not", "display.kind is file", "scanner.path names no device",
                  "mqtt.password is a secret", "mqtt.ca_file is not", "channel.gateway.private_key_file names a file",
                  "no https address"):
        assert any(piece in reason for reason in told.reasons), piece
    box.wait(5)
    assert box.starts == 1 and box.reports[-1].reasons == told.reasons


@pytest.mark.parametrize("display", [{"kind": "file"}, {"path": "/etc/passwd"}, {"kind": "pole", "path": "/dev/../etc/passwd"}])
def test_a_list_of_displays_names_no_file_either(box: Box, display: dict):
    box.push(doc(1, {"display": [{"kind": "fb"}, display]}))
    assert box.report.state == "refused" and any(reason.startswith("display 2.") for reason in box.report.reasons)
    box.push(doc(2, {"pictures": ["/etc/shadow"]}))
    assert box.report.state == "refused" and "send each as blobs.picture/NAME" in box.report.reasons[0]


@pytest.mark.parametrize("change", [{"terminal_id": "T2"}, {"base_url": "https://elsewhere.example"}, {"fields": {"store": "9"}},
                                    {"account": "other"}])
def test_money_goes_elsewhere_only_when_the_document_says_so(box: Box, change: dict):
    box.push(doc(1, {"channel": {"gateway": change}}))
    assert box.report.state == "refused" and "changes where money goes" in box.report.why
    box.push(doc(2, {"channel": {"gateway": change}}, payee_change=True))
    box.wait(3)
    assert box.report.state == "active"


def test_no_line_and_no_channel_are_no_sense(box: Box):
    box.push(doc(1, {"mqtt": {"host": ""}}))
    assert "hears of no better" in box.report.why


def test_another_boxs_document_and_a_strangers_are_counted(box: Box):
    other = Key()
    for token in (wire.config_encoded(doc(5, box="box-2"), KEY.kid, KEY.sign), wire.config_encoded(doc(5), other.kid, other.sign),
                  b"x", b"a.b.c"):
        box.push(token)
    box.wait(3)
    assert (box.report.refused, box.report.version, box.starts) == (4, 0, 1)
    box.push(doc(1))                               # and no mark was moved by them
    box.wait(3)
    assert box.columns == 32


def test_a_secret_is_opened_by_this_box_alone(box: Box):
    import os

    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric import ec

    from device.mqtt.jwe_wire import jwe_encrypted

    mine, other, once = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    (box.state / "encryption.key").write_bytes(mine.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()))
    wrong = jwe_encrypted(b"hush", other.public_key(), once, os.urandom(12))
    box.push(doc(1, {"mqtt": {"password": {"jwe": wrong}}}))
    assert "mqtt.password: it does not open" in box.report.why or "another box" in box.report.why
    box.push(doc(2, {"mqtt": {"password": {"jwe": jwe_encrypted(b"hush", mine.public_key(), once, os.urandom(12))}}}))
    box.wait(3)
    assert box.config.mqtt.password == "hush" and box.report.state == "active"
    assert not any(b"hush" in path.read_bytes() for path in (box.state / "config").rglob("*") if path.is_file())


# -- what a start finds -----------------------------------------------------------------------------------------------

def test_a_rotten_document_leaves_the_one_before_working(box: Box):
    box.push(doc(1))
    box.wait(3)
    token = box.push(doc(2, {"printer": {"columns": 42}}))
    box.wait(3)
    assert box.columns == 42
    path = box.state / "config" / f"{wire.digest_of(token)}.jws"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    box.start()
    assert box.columns == 32


def test_box_toml_changed_by_hand_does_not_stop_the_start(box: Box):
    box.push(doc(1, {"channel": {"gateway": {"notify_url": "https://x.example"}}}))
    box.wait(3)
    box.toml.write_text(box.toml.read_text().split("[channel")[0] + "")
    box.start()
    assert box.config.channels == () or box.config.channels[0].name == "gateway"


def test_why_names_the_layer(box: Box):
    box.push(doc(1, {"printer": {"columns": 32}, "lang": "en"}, origin={"printer": "group:north"}))
    box.wait(3)
    keys = ("printer.columns", "lang", "mqtt.host", "mqtt.port", "channel.gateway.terminal_id")
    assert [box.layers.why(key) for key in keys] == ["group:north", "box", "box.toml", "default", "box.toml"]


def test_the_state_of_it_is_one_that_a_report_can_carry(box: Box):
    box.push(doc(1, {f"key{n}": n for n in range(300)}))
    told = wire.reported_decoded(wire.reported_encoded(box.report))
    assert len(told.reasons) == wire.REASONS_MAX and told.reasons[-1].startswith("and ")
    assert msgspec.json.encode(box.pusher.shown())
