"""Commands at the end of a visit: the box that is replaced, the report of what was done, the restart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from device.console.asking import alive, deed, told
from device.console.looking import state_of
from device.console.session import Call, Failed
from device.console.trying import put_on_paper
from device.txn.visits import VISIT_STEPS_MAX, visit_paper

_TESTS = ("scan test", "print test", "display test", "drawer test", "doctor", "net", "journal verify")


def handover(c: Call) -> Iterator[str]:
    assert c.visit is not None
    done = c.visit.done[-VISIT_STEPS_MAX:]
    report: dict[str, Any] = {"by": c.visit.who, "level": c.visit.level, "since": c.visit.since,
                              "did": [f"{verb}: {end}" for verb, end in done],
                              "passed": sorted({verb for verb, end in done if verb in _TESTS and end == "ok"}),
                              "failed": sorted({verb for verb, end in done if verb in _TESTS and end != "ok"}),
                              "words": c.args}
    c.more["visit"] = report
    yield c.t("做了：", "done: ") + (", ".join(report["did"]) or c.t("无", "nothing"))
    yield c.t("通过：", "passed: ") + (", ".join(report["passed"]) or c.t("无", "none"))
    if report["failed"]:
        yield c.t("没过：", "failed: ") + ", ".join(report["failed"])
    if alive(c.place):
        yield deed(c, "handover", c.args)
        return
    kept = c.spool.noted(c.entry, visit=report)
    if kept:
        yield c.t("守护进程停着：报告先存着，它回来后签名。", "The daemon is dead: the report is kept until it can be signed.")
    if c.place.config is not None and c.place.config.printer.kind != "none":
        try:
            yield from put_on_paper(c, visit_paper(c.place.box, report, signed=False))
        except Failed as why:
            yield c.t(f"没有打印：{why.sentence}", f"not printed: {why.sentence}")
    if not kept:
        raise Failed("FULL", c.t("卡上存不下：这份报告不会成为记录，请抄下上面几行",
                                 "the card keeps nothing: this report becomes no record; copy the lines above"))


def swap(c: Call) -> Iterator[str]:
    state = state_of(c)
    unsent, open_orders, back = state.get("unacked", "?"), state.get("orders", []), state.get("refunds", [])
    if unsent and state.get("health", {}).get("link") == "ok" and told(c.place, "forward") is not None:
        c.say(c.t("正在上传等着的记录 ...", "Sending what waits ..."))
        for _ in range(50):
            said = told(c.place, "state")
            unsent = said["state"]["unacked"] if said is not None else unsent
            if not unsent:
                break
            c.pause(0.2)
    for one in open_orders:
        yield c.t("未决：", "undecided: ") + " ".join(str(one.get(key, "")) for key in ("order_no", "channel", "amount_fen"))
    for one in back:
        yield c.t("退款未完：", "refund under way: ") + " ".join(str(one.get(key, "")) for key in ("refund_no", "amount_fen"))
    yield c.t(f"未上传 {unsent} 条", f"{unsent} records are not in the cloud")
    if unsent or open_orders or back:
        raise Failed("OWES", c.t("旧机还欠账：带走它的卡，接上网直到 swap 说 ok",
                                 "this box still owes: keep its card, and have it on the line until swap says ok"))
    yield c.t("旧机不欠什么，可以拆走。新机用新的入网码，单号是它自己的。",
              "It owes nothing and may leave. The new box is enrolled by a code of its own, and its order numbers are its own.")


def reboot(c: Call) -> Iterator[str]:
    if not alive(c.place):
        raise Failed("DAEMON", c.t("守护进程停着，控制台无权重启：断电再上电",
                                   "the daemon is dead, and the console may not restart the box: take its power away"))
    yield deed(c, "reboot")
