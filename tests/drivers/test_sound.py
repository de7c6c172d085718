"""What is heard of a result: only what the journal says, once, now or never; and the samples, sinks and voice behind it."""

from __future__ import annotations

import asyncio
import itertools
import math
import stat
import struct

import msgspec
import pytest

from device.config import parse
from device.drivers.registry import drivers_of
from device.drivers.sound import wave_bytes as sound
from device.drivers.sound.aplay import AplaySink, espeak
from device.drivers.sound.driver import Speaker
from device.drivers.sound.file import FileSink
from device.errors import DriverBusy, DriverGone
from device.runner import Runner
from device.txn import facts as wire
from device.txn.effects import PlaySound
from device.txn.inputs import ChannelSaid, DeviceSaid, Rang, Said, Scanned
from device.types import Account, Terms
from tests.counter import TEA, Counter

TERMS = Terms(accounts=tuple(Account(name, f"{name}:1", (("mchid", "1"), ("terminal_id", "T1"))) for name in ("wechat", "card")),
              route=("wechat",))
CODE = "134567890123456789"


class Ears(Counter):
    """A counter that keeps what is heard."""

    def __init__(self, terms: Terms = TERMS) -> None:
        self.heard: list[PlaySound] = []
        super().__init__(terms)

    def tell(self, *events):
        verdict = None
        for event in events:
            verdict = super().tell(event)
            if verdict.sound is not None:
                self.heard.append(verdict.sound)
                kept = [f for row in self.journal.durable for f in wire.decode(row.facts).facts]     # on the card, not waiting
                assert sum(isinstance(f, wire.PaymentConfirmed) for f in kept) == sum(n in ("paid", "parked") for n in self.names())
        return verdict

    def names(self) -> list[str]:
        return [one.name for one in self.heard]


def paying(keys: str = "PAY") -> tuple[Ears, str]:
    ears = Ears()
    ears.scan(TEA)
    if keys == "PAY":
        return ears, ears.pay()
    ears.press(keys)
    if keys == "CODE":
        ears.tell(Scanned(CODE))
    return ears, ears.order_no


# Which result is heard

def test_paid_is_heard_once_with_its_amount_and_not_again_after_a_boot():
    ears, no = paying()
    for word in (Said.OPEN, Said.UNKNOWN, Said.ABSENT):
        ears.say(no, word)
    assert ears.heard == []
    ears.say(no, Said.PAID, 500)
    ears.say(no, Said.PAID, 500)
    assert ears.heard == [PlaySound("paid", 500)]
    ears.cut_power()
    ears.say(no, Said.PAID, 500)
    assert len(ears.heard) == 1


def test_what_was_paid_while_the_box_was_dead_is_heard_when_it_is_known():
    ears, no = paying()
    ears.cut_power()
    assert ears.heard == []
    ears.say(no, Said.PAID, 500)
    assert ears.names() == ["paid"]


def test_a_part_is_heard_with_the_amount_that_came():
    ears = Ears()
    ears.scan(TEA)
    ears.press("300 PAY")
    ears.say(ears.order_no, Said.PAID, 300)
    assert ears.heard == [PlaySound("paid", 300)]


def test_cash_makes_no_sound_and_neither_do_keys_scans_and_reports():
    ears = Ears()
    ears.scan(TEA, 2)
    ears.press("VOID CASH DRAWER X Z REPRINT")
    ears.press("CANCEL")
    assert ears.heard == []


def test_a_parked_payment_that_comes_is_told_apart():
    ears, no = paying()
    ears.press("PARK ENTER")
    ears.scan(TEA)
    other = ears.pay()
    ears.say(no, Said.PAID, 500)
    ears.say(other, Said.PAID, 500)
    assert ears.names() == ["parked", "paid"]


def test_money_that_goes_back_never_sounds_like_money_that_came():
    ears, no = paying()
    ears.press("PARK CANCEL")
    ears.say(no, Said.PAID, 500)
    assert ears.box.books.refunds and ears.heard == []
    ears, no = paying()
    ears.press("CANCEL")
    ears.say(no, Said.CLOSED)
    ears.say(no, Said.PAID, 500)
    assert ears.box.books.refunds and ears.heard == []


@pytest.mark.parametrize(("key", "names"), [("ENTER", ["ask", "paid"]), ("CANCEL", ["ask"])])
def test_paid_while_cancelling_asks_aloud(key, names):
    ears, no = paying()
    ears.press("CANCEL")
    ears.say(no, Said.PAID, 500)
    ears.press(key)
    assert ears.names() == names


def test_another_amount_asks_and_says_none():
    ears, no = paying()
    ears.say(no, Said.PAID, 499)
    assert ears.heard == [PlaySound("ask", 0)]


@pytest.mark.parametrize("keys", ["CODE", "5 PAY"])
def test_a_refused_code_or_card_is_heard(keys):
    ears, no = paying(keys)
    ears.tell(ChannelSaid(no, Said.REFUSED, detail="not enough money"))
    assert ears.names() == ["refused"]


def test_what_the_cashier_ended_makes_no_sound_and_what_the_channel_refused_makes_one():
    ears, no = paying("5 PAY")
    ears.press("CANCEL")
    ears.say(no, Said.CLOSED)
    assert ears.heard == []
    ears = Ears()
    ears.scan(TEA)
    ears.press("PAY")
    ears.tell(ChannelSaid(ears.order_no, Said.REFUSED, detail="no"))
    ears.say(ears.order_no, Said.CLOSED)
    assert ears.names() == ["refused"]


def test_a_parked_payment_that_fails_does_not_disturb_the_customer_at_the_counter():
    ears, no = paying("5 PAY")
    ears.press("PARK ENTER")
    ears.tell(ChannelSaid(no, Said.REFUSED))
    assert ears.heard == []


def test_the_asked_question_nobody_answers_makes_no_second_sound():
    ears, no = paying()
    ears.press("CANCEL")
    ears.say(no, Said.PAID, 500)
    ears.mono_ms += 30_000
    ears.tell(Rang(("order", no)))
    assert ears.names() == ["ask"]


# Samples

def hertz_of(samples: bytes) -> list[int]:
    """The notes in it, by the zero crossings of each 40 ms, rests left out."""
    values = struct.unpack(f"<{len(samples) // 2}h", samples)
    size = sound.RATE // 25
    notes: list[int] = []
    for at in range(0, len(values) - size, size):
        piece = values[at:at + size]
        crossings = sum(one < 0 <= other for one, other in itertools.pairwise(piece))
        if max(map(abs, piece)) > 2_000:
            notes.append(crossings * 25)
    return [round(statistic) for statistic, _ in itertools.groupby(notes, key=lambda hz: round(hz / 60) * 60)]


def test_no_two_results_sound_alike_and_none_clips_or_clicks():
    heard = {name: tuple(hertz_of(sound.tones(name))) for name in sound.NOTES}
    assert len(set(heard.values())) == len(heard) == 4
    for name in sound.NOTES:
        values = struct.unpack(f"<{len(sound.tones(name)) // 2}h", sound.tones(name))
        assert 20_000 < max(map(abs, values)) < 32_767 and abs(values[0]) < 100 and abs(values[-1]) < 2_500
        assert len(values) / sound.RATE < 1.0


def test_volume_is_a_share_of_full_scale():
    loud, soft = (max(struct.unpack(f"<{len(s) // 2}h", s)) for s in (sound.tones("paid"), sound.tones("paid", 25)))
    assert math.isclose(soft / loud, .25, rel_tol=.01)


def test_a_wav_comes_back_and_one_from_a_pipe_is_read_to_its_end():
    samples = sound.tones("ask")
    whole = sound.wav(samples, "ask 0")
    assert sound.read_wav(whole) == (samples, "ask 0")
    piped = sound.wav(samples).replace(struct.pack("<I", len(samples)), struct.pack("<I", 0x7FFFF000), 1)
    assert sound.read_wav(piped) == (samples, "")
    other = whole.replace(struct.pack("<I", sound.RATE), struct.pack("<I", 16_000), 1)
    for bad in (b"", b"RIFF", whole[:30], other, whole.replace(b"WAVE", b"AVI ")):
        with pytest.raises(ValueError):
            sound.read_wav(bad)


@pytest.mark.parametrize(("fen", "zh"), [
    (1234, "收款十二元三角四分"), (5, "收款五分"), (50, "收款五角"), (100, "收款一元"), (105, "收款一元零五分"),
    (1_000, "收款十元"), (11_000, "收款一百一十元"), (101_000, "收款一千零一十元"), (1_005_000, "收款一万零五十元"),
    (2_000_000, "收款二万元"),
    (1_234_567_89, "收款一百二十三万四千五百六十七元八角九分"), (10_000_000, "收款十万元")])
def test_an_amount_is_said_as_people_say_it(fen, zh):
    assert sound.amount_spoken("paid", fen, "zh") == zh


def test_only_money_that_came_is_spoken():
    assert sound.amount_spoken("paid", 1205, "en") == "Paid. 12 yuan 05."
    assert sound.amount_spoken("parked", 1200, "en") == "Parked slip paid. 12 yuan."
    assert sound.amount_spoken("ask", 500, "zh") == sound.amount_spoken("refused", 500, "zh") == ""


# The driver

class Ear:
    """A sink that plays when it is told to."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.go = asyncio.Event()
        self.broken: DriverGone | None = None

    def fault(self) -> DriverGone | None:
        return self.broken

    async def play(self, samples: bytes, title: str) -> None:
        self.begun.append(title)
        await self.go.wait()
        self.ended.append(title)


async def said(text: str, lang: str) -> bytes:
    return b"\0\0"


async def mute(text: str, lang: str) -> bytes:
    raise DriverGone("espeak-ng is not installed", which="sound", again=False)


def test_the_amount_is_spoken_behind_its_notes():
    async def story():
        ear = Ear()
        ear.go.set()
        assert await Speaker(ear, voice=said).do(PlaySound("paid", 500)) == DeviceSaid("sound", "ok")
        assert ear.ended == ["paid 500", "收款五元"]
        assert (await Speaker(ear, voice=mute).do(PlaySound("paid", 500))).word == "voice" and ear.ended[-1] == "paid 500"
        assert (await Speaker(ear, voice=mute).do(PlaySound("ask"))).word == "ok"
    asyncio.run(story())


def test_a_sound_that_comes_too_late_is_dropped():
    async def story():
        ear = Ear()
        speaker = Speaker(ear, late_s=0.01)
        first = asyncio.create_task(speaker.do(PlaySound("paid", 500)))
        await asyncio.sleep(0)
        with pytest.raises(DriverBusy):
            await speaker.do(PlaySound("paid", 600))
        ear.go.set()
        await first
        assert ear.ended == ["paid 500"]
        await speaker.do(PlaySound("paid", 700))
        assert ear.ended == ["paid 500", "paid 700"]
    asyncio.run(story())


def test_the_newest_result_cuts_an_older_amount_short():
    async def story():
        ear = Ear()
        ear.go.set()
        talks, never = asyncio.Event(), asyncio.Event()

        async def slow(text, lang):
            talks.set()
            await never.wait()
            return b""
        speaker = Speaker(ear, voice=slow, late_s=1)
        first = asyncio.create_task(speaker.do(PlaySound("paid", 500)))
        await talks.wait()
        second = asyncio.create_task(speaker.do(PlaySound("ask")))
        assert (await second).word == (await first).word == "ok" and ear.ended == ["paid 500", "ask 0"]
        third = asyncio.create_task(speaker.do(PlaySound("paid", 500)))
        await asyncio.sleep(0)
        third.cancel()
        await asyncio.gather(third, return_exceptions=True)
        assert not [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
    asyncio.run(story())


def test_the_file_holds_the_last_sound_whole(tmp_path):
    path = tmp_path / "sound.wav"

    async def story():
        await Speaker(FileSink(path), volume=50).do(PlaySound("paid", 1234))
        samples, title = sound.read_wav(path.read_bytes())
        assert (title, samples) == ("paid 1234", sound.tones("paid", 50))
        with pytest.raises(DriverGone):
            await FileSink(tmp_path / "none" / "x").play(b"", "")
    asyncio.run(story())


def program(folder, text: str) -> str:
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_aplay_is_given_the_samples_and_killed_when_it_is_stuck(tmp_path, monkeypatch):
    async def story():
        sink = AplaySink("plughw:1", program(tmp_path, f'echo "$@" >{tmp_path}/argv; cat >{tmp_path}/heard'))
        await sink.play(sound.tones("paid"), "")
        assert (tmp_path / "heard").read_bytes() == sound.tones("paid")
        assert (tmp_path / "argv").read_text() == "-q -D plughw:1 -t raw -f S16_LE -r 22050 -c 1\n"
        with pytest.raises(DriverGone, match="failed"):
            await AplaySink("x", program(tmp_path, "exit 1")).play(b"\0\0", "")
        monkeypatch.setattr("device.drivers.sound.aplay.OVER_S", 0.05)
        with pytest.raises(DriverGone, match="does not come to an end"):
            await AplaySink("x", program(tmp_path, "exec sleep 60")).play(b"\0\0", "")
        assert AplaySink("x", str(tmp_path / "none")).fault().again is False
    asyncio.run(story())


def test_espeak_is_asked_in_the_tills_language_and_what_it_says_is_checked(tmp_path):
    async def story():
        (tmp_path / "said.wav").write_bytes(sound.wav(b"\1\0\2\0"))
        speaks = program(tmp_path, f'echo "$@" >{tmp_path}/argv; cat {tmp_path}/said.wav')
        assert await espeak("收款一元", "zh", speaks) == b"\1\0\2\0"
        assert (tmp_path / "argv").read_text().split() == ["-v", "cmn", "--stdout", "--", "收款一元"]
        with pytest.raises(DriverGone, match="cannot be played"):
            await espeak("x", "en", program(tmp_path, "echo no sound"))
        with pytest.raises(DriverGone, match="not installed"):
            await espeak("x", "en", str(tmp_path / "none"))
    asyncio.run(story())


# Put together

def test_the_runner_plays_after_the_row_and_a_broken_loudspeaker_holds_up_nobody():
    class Clock:
        def now_ms(self):
            return ears.mono_ms

        def stamp(self):
            raise AssertionError

    ears, no = paying()

    async def story():
        ear = Ear()
        runner = Runner(ears.box, {"sound": Speaker(ear)}, Clock())
        ear.broken = DriverGone("aplay is not installed", which="sound", again=False)
        await runner._pass(PlaySound("paid", 500))
        assert runner._inbox.get_nowait() == DeviceSaid("sound", "error", "aplay is not installed")
        ear.broken = None
        ear.go.set()
        await runner._pass(PlaySound("paid", 500))
        assert runner._inbox.get_nowait() == DeviceSaid("sound", "ok") and ear.ended == ["paid 500"]
    asyncio.run(story())


@pytest.mark.parametrize(("kind", "more"), [("aplay", {}), ("file", {"path": "x.wav"}), ("none", {})])
def test_a_configuration_names_the_loudspeaker(kind, more):
    config = parse({"box": "b", "box_no": "000001", "tenant": "t", "sound": {"kind": kind, **more}})
    drivers = drivers_of(msgspec.structs.replace(config, scanner=msgspec.structs.replace(config.scanner, kind="none"),
                                                 keypad=msgspec.structs.replace(config.keypad, kind="none"),
                                                 printer=msgspec.structs.replace(config.printer, kind="none")), lambda symbol: None)
    assert ("sound" in drivers) is (kind != "none")
