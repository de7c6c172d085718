"""The card terminal's line: frames, what an answer proves, every fault under every call, and the cables themselves."""

from __future__ import annotations

import asyncio
import itertools
import random

import msgspec
import pytest

from device.drivers.channels import card_frame_bytes as frame
from device.drivers.channels.card import CardTerminal
from device.drivers.channels.card_line import serial_line, tcp_line
from device.errors import DriverBusy, DriverGone
from device.txn.effects import ChargeCard, CloseOrder, QueryOrder, QueryRefund, RefundIntent, RefundOrder
from device.txn.inputs import ChannelSaid, DeviceSaid, RefundWord, Said
from device.types import Account
from sim.devices.terminal import CANARY, FAULTS, LINE_ONLY, TerminalModel
from sim.devices.terminal_port import TerminalPort
from tests.card_till import SHOP, TEA, Till, Wire, settled

BACK = RefundIntent("0000012345000000020Z", TEA.order_no, "card", SHOP, 300, 900, "退货", "2026-11-18T10:28:00+08:00",
                    "0012-000001", "card")
SECRET = b"0123456789abcdef"


def over_till(story, **more):
    async def run():
        async with Till(**more) as till:
            return await story(till)
    return asyncio.run(run())


# Frames

BODIES = (b"HL\x1c00000001\x1cTIT1", b"QY\x1c0a1b2c3d\x1cTIT1\x1cNO0000012345000000010Z\x1cAM900", b"x" * 512)


def test_frames_are_those_of_the_document():
    """The bytes of docs/channels.md, written out by hand there."""
    assert frame.framed(BODIES[0]).hex(" ") == "02 00 16 48 4c 1c 30 30 30 30 30 30 30 31 1c 54 49 54 31 03 68"
    reply = bytes.fromhex("02 00 24 68 6c 1c 30 30 30 30 30 30 30 31 1c 54 49 54 31 1c 53 54 72 65 61 64 79 03 2a")
    heard = frame.Frames().feed(reply)
    assert [frame.read(h.body) for h in heard] == [frame.Message("hl", "00000001", {"TI": "T1", "ST": "ready"})]
    assert frame.seal("HL\x1c00000001\x1cTIT1", SECRET) == "f2fb36e18e07f29b"


def test_what_is_cut_anywhere_is_put_together_again():
    whole = b"\x06".join(map(frame.framed, BODIES)) + b"\x15"
    for cut in (1, 2, 3, 7, len(whole)):
        frames, heard = frame.Frames(), []
        for at in range(0, len(whole), cut):
            heard += frames.feed(whole[at:at + cut])
        assert [(h.kind, h.body) for h in heard] == [("frame", BODIES[0]), ("ack", b""), ("frame", BODIES[1]), ("ack", b""),
                                                     ("frame", BODIES[2]), ("nak", b"")]
        assert not frames.open


def test_no_flipped_bit_makes_another_message():
    whole = frame.framed(BODIES[1])
    for at, bit in itertools.product(range(len(whole)), range(8)):
        spoilt = whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1:]
        frames = frame.Frames()
        heard = frames.feed(spoilt) + frames.quiet()
        assert not any(h.kind == "frame" for h in heard), (at, bit)


def test_a_frame_that_lost_its_end_does_not_take_the_next_one_with_it():
    one, two = frame.framed(BODIES[1]), frame.framed(BODIES[0])
    for lost in range(1, len(one)):
        frames = frame.Frames()
        heard = frames.feed(one[:-lost]) + frames.quiet() + frames.feed(two)
        assert [h.body for h in heard if h.kind == "frame"] == [BODIES[0]], lost
        frames = frame.Frames()
        heard = frames.feed(one[:-lost] + two) + frames.quiet()
        assert [h.body for h in heard if h.kind == "frame"] == [BODIES[0]], lost


def test_noise_is_survived():
    rng = random.Random(1)
    for _ in range(300):
        frames = frame.Frames()
        for _ in range(20):
            frames.feed(bytes(rng.choice((2, 3, 6, 21, 0, 0x31, 0x1c, 255)) for _ in range(rng.randrange(40))))
        frames.quiet()
        assert not frames.open and [h.body for h in frames.feed(frame.framed(BODIES[0]))] == [BODIES[0]]


@pytest.mark.parametrize("body", [b"", b"HL", b"HL\x1c1", b"H1\x1c00000001", b"HL\x1c0000000g", b"HL\x1c00000001\x1ctix",
                                  b"\xff\x1c00000001", b"HL\x1c00000001\x1cTIT1\x1cTIT2", b"HL\x1c00000001\x1cTIa\x07",
                                  b"HL\x1c00000001\x1c"])
def test_a_body_that_is_none_is_no_message(body):
    assert frame.read(body) is None


@pytest.mark.parametrize("text", [CANARY, "6222 0212 3456 7890 128", "6222-0212-3456", "pan=4111,1111,1111,1111;", "000000000000"])
def test_what_could_be_a_card_number_is_asterisks_before_anything_sees_it(text):
    said = frame.read(frame.written("ev", "00000001", {"CD": text, "NO": text}))
    assert said.unmasked and not any(sum(c.isdigit() for c in part) >= 12 for part in said.parts.values())
    assert not frame.read(frame.written("ev", "00000001", {"CD": "****1234", "RE": "0012-000345", "AM": "999999999"})).unmasked


def test_our_own_number_may_be_all_digits():
    own = "00000140480000000010"
    assert frame.read(frame.written("qy", "00000001", {"NO": own}), {own}).parts == {"NO": own}


def test_a_seal_is_over_every_byte_before_it():
    body = frame.written("sa", "00000001", {"ST": "approved", "AM": "900"}, SECRET)
    assert frame.read(body, (), SECRET).parts == {"ST": "approved", "AM": "900"}
    for spoilt in (body.replace(b"900", b"901"), body[:-1], body[:-19], body.replace(b"sa", b"SA"),
                   b"sa\x1c00000001\x1cSTapproved"):
        assert frame.read(spoilt, (), SECRET) is None
    assert frame.read(body, (), b"another") is None


# A sale

@pytest.mark.parametrize(("outcome", "word", "why"), [
    ("pay", Said.PAID, ""), ("insufficient", Said.REFUSED, "not enough money on the card"),
    ("abandon", Said.CLOSED, "it was cancelled at the card terminal")])
def test_what_the_holder_does_is_told_at_once_and_again_when_asked(outcome, word, why):
    async def story(till):
        assert (await till.said(ChargeCard(TEA))).said is Said.OPEN
        till.model.tap(outcome)
        await settled()
        asked = await till.said(QueryOrder(TEA))
        (told,) = [e for e in till.heard if isinstance(e, ChannelSaid)]
        assert told == asked and (told.said, told.detail) == (word, why)
        holds = (900, "0012-000001", "****0128") if word is Said.PAID else (0, "", "")
        assert (told.amount_fen, told.channel_no, told.payer) == holds
        till.now_ms += 10_000
        till.model.tick()
        await settled()
        assert len(till.words()) == 1 and till.health == "ok"                # acknowledged: not said again
    over_till(story)


def test_a_slow_holder_is_waited_for_and_one_who_never_comes_ends_it():
    async def story(till):
        await till.said(ChargeCard(TEA))
        till.model.tap("slow", slow_s=30)
        assert (await till.said(QueryOrder(TEA))).said is Said.OPEN
        till.now_ms += 30_000
        assert (await till.said(QueryOrder(TEA))).said is Said.PAID
        other = msgspec.structs.replace(TEA, order_no="0000012345000000030Z")
        await till.said(ChargeCard(other))
        till.now_ms += 120_000
        assert (await till.said(QueryOrder(other))).said is Said.CLOSED
    over_till(story)


def test_an_undo_cancels_what_is_asked_voids_what_was_paid_and_says_when_it_cannot():
    async def story(till):
        await till.said(ChargeCard(TEA))
        assert [(await till.said(CloseOrder(TEA))).said for _ in range(2)] == [Said.CLOSED] * 2
        paid, late = (msgspec.structs.replace(TEA, order_no=f"000001234500000003{n}Z") for n in (1, 2))
        for intent in (paid, late):
            await till.said(ChargeCard(intent))
            till.model.tap("pay")
        assert [(await till.said(CloseOrder(paid))).said for _ in range(2)] == [Said.GIVEN_BACK] * 2
        till.model.closed_batch = True
        said = await till.said(CloseOrder(late))
        assert (said.said, said.undo, said.amount_fen) == (Said.PAID, True, 900)
        assert [row["state"] for row in till.model.orders()] == ["closed", "reversed", "paid"]
    over_till(story)


@pytest.mark.parametrize(("settles", "word"), [("approved", Said.PAID), ("voided", Said.GIVEN_BACK)])
def test_a_bank_that_is_not_heard_is_waited_for(settles, word):
    async def story(till):
        await till.said(ChargeCard(TEA))
        till.model.host, till.model.settles = "mute", settles
        till.model.tap("pay")
        assert (await till.said(QueryOrder(TEA))).said is Said.UNKNOWN
        till.model.power(False)
        till.model.power(True)
        assert (await till.said(QueryOrder(TEA))).said is Said.UNKNOWN
        till.model.host = "online"
        assert (await till.said(QueryOrder(TEA))).said is word
    over_till(story)


def test_an_undo_while_the_bank_is_not_heard_is_undecided_until_it_is():
    async def story(till):
        await till.said(ChargeCard(TEA))
        till.model.host = "mute"
        till.model.tap("pay")
        assert (await till.said(CloseOrder(TEA))).said is Said.UNKNOWN
        till.model.host = "online"
        assert (await till.said(CloseOrder(TEA))).said is Said.GIVEN_BACK
    over_till(story)


# Before the sale leaves

@pytest.mark.parametrize("state", ["off", "offline", "busy", "other", "unplugged"])
def test_no_sale_leaves_for_a_terminal_that_cannot_take_it(state):
    async def story(till):
        if state == "off":
            till.model.power(False)
        elif state == "offline":
            till.model.host = "offline"
        elif state == "busy":
            await till.said(ChargeCard(msgspec.structs.replace(TEA, order_no="0000012345000000030Z")))
            till.model.heard.clear()
        elif state == "unplugged":
            till.wire.close()
            await settled()
        said = await till.said(ChargeCard(TEA))
        assert said.said is Said.REFUSED and said.detail and till.sales() == 0
        expected = {"off": "slow", "offline": "offline", "busy": "ok", "other": "error", "unplugged": "gone"}[state]
        assert till.health == expected
    over_till(story, terminal_id="T2" if state == "other" else "T1")


def test_what_was_asked_of_another_terminal_is_not_asked_of_this_one():
    async def story(till):
        other = msgspec.structs.replace(TEA, account=Account("card", "main", (("terminal_id", "T9"),)))
        for effect in (ChargeCard(other), QueryOrder(other), CloseOrder(other)):
            assert (await till.said(effect)).said is Said.UNKNOWN
        assert not till.model.heard
    over_till(story)


def test_a_sale_that_cannot_be_put_to_a_terminal_is_refused_before_a_byte():
    async def story(till):
        assert (await till.said(ChargeCard(msgspec.structs.replace(TEA, amount_fen=0)))).said is Said.REFUSED
        assert till.sales() == 0
        unknown = msgspec.structs.replace(BACK, channel_no="")
        assert (await till.said(RefundOrder(unknown))).word is RefundWord.UNKNOWN
    over_till(story)


# Refunds

def test_a_refund_is_one_a_number_however_often_it_is_asked_for():
    async def story(till):
        await till.paid()
        assert (await till.said(QueryRefund(BACK))).word is RefundWord.ABSENT
        assert [(await till.said(RefundOrder(BACK))).word for _ in range(3)] == [RefundWord.DONE] * 3
        assert till.model.orders()[0]["refunded_fen"] == 300
        more = msgspec.structs.replace(BACK, refund_no="0000012345000000040Z", amount_fen=601)
        assert (await till.said(RefundOrder(more))).word is RefundWord.REFUSED
        stranger = msgspec.structs.replace(BACK, refund_no="0000012345000000050Z", channel_no="0012-000009")
        assert (await till.said(RefundOrder(stranger))).word is RefundWord.REFUSED
    over_till(story)


def test_a_refund_waits_for_the_bank():
    async def story(till):
        await till.paid()
        till.model.host = "mute"
        assert [(await till.said(RefundOrder(BACK))).word for _ in range(2)] == [RefundWord.PROCESSING] * 2
        till.model.host = "online"
        assert (await till.said(QueryRefund(BACK))).word is RefundWord.DONE
    over_till(story)


# Every fault under every call

EFFECTS = {"SA": ChargeCard(TEA), "QY": QueryOrder(TEA), "VO": CloseOrder(TEA), "RF": RefundOrder(BACK), "RQ": QueryRefund(BACK)}
ORDER_STATES = {Said.OPEN: {"asking"}, Said.PAID: {"approved"}, Said.CLOSED: {"cancelled", "declined"}, Said.GIVEN_BACK: {"voided"},
                Said.ABSENT: {None}, Said.REFUSED: {None, "declined"}}


def assert_true(model: TerminalModel, said) -> None:
    """The word is the terminal's own truth, or none."""
    if isinstance(said, ChannelSaid):
        state = next((t.state for t in model.txns if t.order_no == said.order_no), None)
        assert said.said is Said.UNKNOWN or state in ORDER_STATES[said.said], (said, state)
    else:
        state = next((r.state for r in model.refunds), None)
        assert said.word is RefundWord.UNKNOWN or {RefundWord.DONE: "refunded", RefundWord.ABSENT: None}[said.word] == state, said


@pytest.mark.parametrize("call", EFFECTS)
@pytest.mark.parametrize("kind", [kind for kind in FAULTS if kind not in LINE_ONLY])
def test_no_fault_claims_what_is_not_so_and_none_charges_or_pays_twice(kind, call):
    async def story(till):
        effect = EFFECTS[call]
        if call != "SA":
            await till.paid()
        if call == "RQ":
            await till.said(RefundOrder(BACK))
        till.model.fault(kind, call=call, count=None)
        for _ in range(1 if call == "SA" else 2):      # a sale is asked for once; the rest by its pace
            said = await till.said(effect)
            assert till.model.fired[kind]
            if kind == "wrong_amount" and isinstance(said, ChannelSaid) and said.said is Said.PAID:
                assert said.amount_fen == 901          # the core holds it
            assert_true(till.model, said)
            assert CANARY not in repr(said) + repr(till.heard) + repr(vars(till.driver))
            till.model.power(True)
        till.model.clear()
        if till.model.asking is not None:
            till.model.tap("pay")
        truth = await till.said(effect if call in ("RF", "RQ") else QueryOrder(TEA))
        assert_true(till.model, truth)
        assert (truth.word if call in ("RF", "RQ") else truth.said) not in (Said.UNKNOWN, RefundWord.UNKNOWN)
        assert till.sales() <= 1 and sum(t.charge is not None for t in till.model.txns) <= 1
        assert sum(r.amount_fen for r in till.model.refunds) in (0, 300)
    over_till(story, secret=SECRET if kind == "unsealed" else b"")


def test_a_spoilt_sale_is_known_not_to_have_come_and_a_sale_that_came_is_not_called_spoilt():
    async def story(till):
        till.model.fault("nak", call="SA")
        said = await till.said(ChargeCard(TEA))
        assert said.said is Said.REFUSED and "did not reach" in said.detail and not till.model.txns
        till.model.fault("nak_lies", call="SA")
        assert (await till.said(ChargeCard(msgspec.structs.replace(TEA, order_no="0000012345000000030Z")))).said is Said.OPEN
    over_till(story)


def test_a_spoilt_answer_is_asked_for_again_and_a_babbler_not_for_ever():
    async def story(till):
        till.model.fault("wrong_lrc_once", call="QY")
        assert (await till.said(QueryOrder(TEA))).said is Said.ABSENT
        naks = len([data for data in till.wire.written if data == frame.NAK])
        till.model.fault("wrong_lrc", call="QY")
        assert (await till.said(QueryOrder(TEA))).said is Said.UNKNOWN
        assert len([data for data in till.wire.written if data == frame.NAK]) - naks == 3
    over_till(story)


def test_an_answer_that_comes_late_is_not_the_answer_to_the_next_question():
    async def story(till):
        await till.said(ChargeCard(TEA))
        till.model.fault("late", call="QY")
        assert (await till.said(QueryOrder(TEA))).said is Said.UNKNOWN       # "asking", on its way still
        till.model.tap("pay")
        till.model.fault("lost_answer", call="QY")
        assert (await till.said(QueryOrder(TEA))).said is Said.UNKNOWN
        assert (await till.said(QueryOrder(TEA))).said is Said.PAID
    over_till(story)


def test_lost_news_is_asked_for_and_doubled_news_is_the_same_news():
    async def story(till):
        till.model.fault("lost_news")
        await till.paid()
        assert till.words() == [] and (await till.said(QueryOrder(TEA))).said is Said.PAID
        till.model.fault("doubled_news", count=None)
        await till.said(ChargeCard(msgspec.structs.replace(TEA, order_no="0000012345000000030Z")))
        till.model.tap("insufficient")
        for _ in range(6):
            till.now_ms += 1_000
            till.model.tick()
            await settled()
        assert till.words() == [(Said.REFUSED, 0, "")] * 3
    over_till(story)


def test_news_of_an_order_nobody_asked_about_is_nobodys():
    async def story(till):
        news = {"TI": "T1", "NO": CANARY + "0", "ST": "approved", "AM": "900", "RE": "1"}
        till.model.say(frame.framed(frame.written("EV", "00000009", news)))
        await settled()
        assert till.words() == [] and CANARY not in repr(till.heard)
    over_till(story)


def test_a_terminal_that_shows_whole_cards_is_told_on_and_still_believed():
    async def story(till):
        till.model.fault("unmasked", call="news")
        await till.paid()
        assert till.words() == [(Said.PAID, 900, "")] and till.health == "unmasked"
        assert (await till.said(QueryOrder(TEA))).payer == "****0128" and till.health == "ok"
    over_till(story)


def test_a_question_nobody_wants_any_more_leaves_the_line_to_the_next():
    async def story(till):
        till.model.fault("lost_answer", call="QY")
        asking = asyncio.create_task(till.said(QueryOrder(TEA)))
        await settled()
        asking.cancel()
        assert (await till.said(ChargeCard(TEA))).said is Said.OPEN
    over_till(story)


def test_a_sale_does_not_wait_behind_all_the_closed_orders_that_are_watched():
    async def story(till):
        closed = [msgspec.structs.replace(TEA, order_no=f"00000123450000001{n:02d}Z") for n in range(40)]
        watching = [asyncio.create_task(till.driver.do(QueryOrder(intent, watch=True))) for intent in closed]
        await asyncio.sleep(0)
        assert (await till.driver.do(ChargeCard(TEA))).said is Said.OPEN
        assert [m.call for m in till.model.heard].index("SA") < 4
        assert {said.said for said in await asyncio.gather(*watching)} == {Said.ABSENT}
    over_till(story)


# Cables

@pytest.fixture(params=["wire", "pty", "tcp"])
def cable(request, tmp_path):
    """A driver's opener, and the model behind it with what runs on it."""
    model = TerminalModel(lambda: 0)
    if request.param == "wire":
        async def opened():
            return Wire(model)
        yield opened, lambda does: does(), lambda: None, model
        return
    port = TerminalPort(model, tmp_path / "terminal" if request.param == "pty" else None)
    yield ((lambda: serial_line(str(tmp_path / "terminal"), 9600)) if request.param == "pty"
           else (lambda: tcp_line("127.0.0.1", port.port))), port.hand, port.close, model
    if port._thread.is_alive():
        port.close()


def test_one_contract_over_every_cable(cable):
    opened, hand, _, model = cable

    async def story():
        driver = CardTerminal(opened, account="main", terminal_id="T1")
        heard: asyncio.Queue = asyncio.Queue()

        async def listen():
            async for event in driver.inputs():
                heard.put_nowait(event)
        listening = asyncio.create_task(listen())
        assert await heard.get() == DeviceSaid("channel:card", "ok")
        assert (await driver.do(ChargeCard(TEA))).said is Said.OPEN
        await asyncio.to_thread(hand, lambda: model.tap("pay"))
        news = await asyncio.wait_for(heard.get(), 5)
        assert (news.said, news.payer) == (Said.PAID, "****0128") and news == await driver.do(QueryOrder(TEA))
        assert (await driver.do(RefundOrder(BACK))).word is RefundWord.DONE
        assert [row["refunded_fen"] for row in model.orders()] == [300]
        await driver.close()
        await listening
        assert (await driver.do(QueryOrder(TEA))).said is Said.UNKNOWN
    asyncio.run(story())


@pytest.mark.parametrize("kind", ["pty", "tcp"])
def test_a_cable_that_is_pulled_is_said_and_one_put_back_is_used(kind, tmp_path):
    path = tmp_path / "terminal" if kind == "pty" else None
    model = TerminalModel(lambda: 0)
    port = TerminalPort(model, path)
    number = port.port

    async def story():
        driver = CardTerminal((lambda: serial_line(str(path), 9600)) if path else (lambda: tcp_line("127.0.0.1", number)),
                              account="main", terminal_id="T1")
        for round_ in range(2):
            news = driver.inputs()
            assert await anext(news) == DeviceSaid("channel:card", "ok")
            if not round_:
                port.close()
                gone = await asyncio.wait_for(anext(news), 5)
                assert gone.word == "gone" and (await driver.do(ChargeCard(TEA))).said is Said.REFUSED
                with pytest.raises(StopAsyncIteration):
                    await anext(news)
                said = [event async for event in driver.inputs()]
                assert [event.word for event in said] == ["gone"]
                again.append(TerminalPort(model, path, port=number))
            else:
                await news.aclose()
    again: list[TerminalPort] = []
    asyncio.run(story())
    for one in again:
        one.close()


def test_the_serial_port_is_ours_alone(tmp_path):
    port = TerminalPort(TerminalModel(lambda: 0), tmp_path / "terminal")

    async def story():
        line = await serial_line(str(tmp_path / "terminal"), 9600)
        with pytest.raises(DriverBusy):
            await serial_line(str(tmp_path / "terminal"), 9600)
        line.close()
        with pytest.raises(DriverGone):
            await serial_line(str(tmp_path / "none"), 9600)
    asyncio.run(story())
    port.close()
