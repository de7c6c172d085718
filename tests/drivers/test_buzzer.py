"""Results without a loudspeaker: beeps in the printer, on a wire, on the board; and an amount out of recorded words."""

from __future__ import annotations

import asyncio
import struct

import pytest

from device.drivers.printer.driver import Printer
from device.drivers.sound import wave_bytes as sound
from device.drivers.sound.buzzer import EVENT, BoardBuzzer, PrinterBuzzer, WireBuzzer
from device.drivers.sound.driver import Speaker
from device.drivers.sound.voice import _WORD, FILES, RecordedVoice, words_of
from device.errors import DriverBusy, DriverGone
from device.txn.effects import Cut, PlaySound, Print, Text
from device.txn.inputs import DeviceSaid, Printed
from sim.devices.printer import PrinterModel
from tests.paper_trail import NEVER_SLOW, BrokenLine


async def no_time(seconds: float) -> None:
    """Notes take none."""


def heard(sink, *results: PlaySound):
    async def story():
        speaker = Speaker(sink)
        return [await speaker.do(result) for result in results]
    return asyncio.run(story())


def test_the_printer_beeps_before_the_receipt_and_tells_results_apart():
    async def story():
        model = PrinterModel(draws=False)
        printer = Printer(BrokenLine(model), limits=NEVER_SLOW)
        speaker = Speaker(PrinterBuzzer(printer))
        beeps = []
        for name in ("paid", "parked", "refused", "ask"):
            before = model.beeps
            await speaker.do(PlaySound(name, 500))
            beeps.append(model.beeps - before)
        before = model.beeps
        both = await asyncio.gather(printer.do(Print(1, (Text("receipt"), Cut()))), speaker.do(PlaySound("paid", 500)))
        return beeps, both, model.beeps - before, [r.raw for r in model.receipts()]
    beeps, both, during, raws = asyncio.run(story())
    assert beeps == [1, 3, 2, 1] and during == 1       # notes parted by rests, one beep each
    assert both[0] == Printed(1, 3) and b"\x1bB" not in raws[0]      # and never inside the job


def test_a_printer_that_is_busy_too_long_does_not_beep_late(monkeypatch):
    async def story():
        monkeypatch.setattr("device.drivers.printer.driver.BEEP_LATE_S", 0.01)
        model = PrinterModel(draws=False)
        printer = Printer(BrokenLine(model), limits=NEVER_SLOW)
        async with printer._one_job:
            with pytest.raises(DriverBusy):
                await printer.beep(1)
        await printer.do(Print(1, (Text("receipt"), Cut())))
        return model.beeps
    assert asyncio.run(story()) == 0


def test_no_printer_no_beep():
    with pytest.raises(DriverGone):
        heard(PrinterBuzzer(None), PlaySound("paid", 1))


def test_a_wire_is_up_for_each_note_and_down_in_the_end(tmp_path):
    wire, levels = tmp_path / "value", []
    wire.write_text("0")

    async def look(seconds: float) -> None:
        levels.append((wire.read_text(), round(seconds * 1000)))
    assert heard(WireBuzzer(str(wire), sleep=look), PlaySound("refused", 0)) == [DeviceSaid("sound", "ok")]
    assert levels == [("1", 220), ("0", 80), ("1", 380)] and wire.read_text() == "0"


def test_a_wire_is_down_also_when_it_is_cut_short(tmp_path):
    wire = tmp_path / "value"
    wire.write_text("0")

    async def story():
        started = asyncio.Event()

        async def for_ever(seconds: float) -> None:
            started.set()
            await asyncio.Event().wait()
        note = asyncio.create_task(WireBuzzer(str(wire), sleep=for_ever).play_notes(sound.NOTES["paid"]))
        await started.wait()
        assert wire.read_text() == "1"
        note.cancel()
        await asyncio.wait({note})
    asyncio.run(story())
    assert wire.read_text() == "0"


def test_a_wire_that_is_not_there_is_not_made(tmp_path):
    for sink in (WireBuzzer(str(tmp_path / "none")), BoardBuzzer(str(tmp_path / "none"))):
        assert sink.fault() is not None
        with pytest.raises(DriverGone):
            asyncio.run(sink.play_notes(sound.NOTES["paid"]))
    assert list(tmp_path.iterdir()) == []


def test_the_board_is_told_each_tone_and_then_silence(tmp_path):
    node = tmp_path / "event-spkr"
    node.write_bytes(b"")
    heard(BoardBuzzer(str(node), sleep=no_time), PlaySound("paid", 5))
    events = list(struct.iter_unpack(EVENT.format, node.read_bytes()[-EVENT.size * 8:]))
    told = [value for _, _, kind, code, value in events if (kind, code) == (0x12, 0x02)]
    assert told[-1] == 0 and told == [hertz for hertz, _ in sound.NOTES["paid"]] + [0]


def test_an_amount_is_put_together_from_recorded_words(tmp_path):
    for n, name in enumerate(FILES):
        (tmp_path / f"{name}.wav").write_bytes(sound.wav(struct.pack("<h", n + 1)))
    voice = RecordedVoice(str(tmp_path))
    for fen, lang, words in ((123_456, "zh", "paid 1 1000 2 100 3 10 4 yuan 5 jiao 6 fen"), (5, "zh", "paid 5 fen"),
                             (100_005, "zh", "paid 1 1000 yuan 0 5 fen"), (1_234, "en", "paid 1 2 yuan 3 4")):
        text = sound.amount_spoken("paid", fen, lang)
        assert words_of(text) == words.split(), text
        assert asyncio.run(voice(text, lang)) == b"".join(struct.pack("<h", FILES.index(w) + 1) for w in words.split())
    (tmp_path / "yuan.wav").unlink()
    with pytest.raises(DriverGone, match=r"yuan\.wav"):
        asyncio.run(RecordedVoice(str(tmp_path))("收款五元", "zh"))


def test_every_amount_has_words():
    for fen in (1, 10, 11, 100, 101, 110, 1000, 1001, 9_999_999, 99_999_999):
        for name in ("paid", "parked"):
            for lang in ("zh", "en"):
                text = sound.amount_spoken(name, fen, lang)
                assert words_of(text)[0] == name and _WORD.sub("", text).strip(" .") == "", text
