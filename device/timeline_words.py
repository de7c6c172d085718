"""What each step of a payment is called, in Chinese and English, and what most likely went wrong.  Pure: facts in, words out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from device.txn import facts as f
from device.txn.words import yuan

SLOW_S = 10.0                            # a customer begins to wonder


class Step(msgspec.Struct, frozen=True):
    """One step: wall time of the box (RFC 3339), seconds after the first step (on the boot's own clock where both are of one boot),
    `what` a word for programs, and the sentence in both languages; `n` the journal's row, 0 for what only memory knows.
    """

    at: str
    after_s: float
    what: str
    en: str
    zh: str
    n: int = 0


PROOFS = ("sent, not confirmed", "the printer was well after it", "paper was there after it", "the printer named it done")
Told = Callable[[Any], tuple[str, str, str]]

# (word, English, Chinese) of a fact; what is not named here is no step.
STEPS: dict[type[f.Fact], Told] = {
    f.LineAdded: lambda x: ("scan", f"scanned {x.line.name_en or x.line.name_zh} {yuan(x.line.amount_fen)}",
                            f"扫入 {x.line.name_zh} {yuan(x.line.amount_fen)}"),
    f.LineVoided: lambda x: ("void", f"a line was taken back ({x.reason})", "撤销一行"),
    f.TenderTaken: lambda x: ("tender", f"{x.tender.method} {yuan(x.tender.amount_fen)} taken as a part",
                              f"收下部分 {x.tender.method} {yuan(x.tender.amount_fen)}"),
    f.OrderIntended: lambda x: (
        "intent", f"{yuan(x.intent.amount_fen)} asked of {x.intent.channel} by {x.intent.way}: on the card, then sent",
        f"向 {x.intent.channel} 下单 {yuan(x.intent.amount_fen)}（{x.intent.way}），先落账再发送"),
    f.QrIssued: lambda x: ("qr", "the channel gave a QR; it stands on the display", "渠道返回二维码，已上屏"),
    f.ChargeStarted: lambda x: ("charge", "the payer's code left, once", "付款码已发出，仅一次"),
    f.PayerAsked: lambda x: ("password", "the channel asks the payer for a password", "渠道要求顾客输密码"),
    f.CancelWished: lambda x: ("cancel", f"to be undone: {x.cause}", f"要撤销：{x.cause}"),
    f.OrderClosed: lambda x: (
        "closed", f"closed at the channel{f': {x.why}' if x.why else ''}{', money given back' if x.given_back else ''}",
        f"渠道已关单{'，款已退回' if x.given_back else ''}"),
    f.OrderReopened: lambda x: ("reopened", "open at the channel after all", "渠道上仍是开单"),
    f.PaidUnderUndo: lambda x: ("paid_undoing", "paid while it was being undone", "撤销途中顾客已付款"),
    f.PaidWhileCancelling: lambda x: ("paid_cancelling", "paid while it was being cancelled: the cashier is asked",
                                      "取消途中已付款，询问收银员"),
    f.UndoRefused: lambda x: ("undo_refused", f"the channel will never undo it{f': {x.why}' if x.why else ''}", "渠道拒绝撤销"),
    f.OrderOverdue: lambda x: ("overdue", "its shelf life is over: the channel's next word or bill is the last",
                               "过了有效期，以渠道账单为准"),
    f.OrderParked: lambda x: ("parked", f"set aside undecided ({x.policy})", f"未决，挂起（{x.policy}）"),
    f.PaymentConfirmed: lambda x: ("paid", f"the channel says paid, {yuan(x.amount_fen)} (its number {x.channel_no})",
                                   f"渠道确认已付 {yuan(x.amount_fen)}（渠道单号 {x.channel_no}）"),
    f.AmountDisputed: lambda x: ("disputed", f"the channel says {yuan(x.amount_fen)}, another amount than the order's",
                                 f"渠道说的金额 {yuan(x.amount_fen)} 与订单不同"),
    f.MoneyHeld: lambda x: ("held", f"the channel took {yuan(x.amount_fen)} and cannot say whose it is: {x.why}",
                            "渠道扣了款但说不清归属"),
    f.LatePaymentFound: lambda x: ("late", "paid after it was closed here", "关单之后才付款"),
    f.SaleClosed: lambda x: ("sale", f"the sale is made, {yuan(x.sale.amount_fen)}", f"成交 {yuan(x.sale.amount_fen)}"),
    f.RefundIntended: lambda x: ("refund", f"{yuan(x.intent.amount_fen)} to be given back ({x.cause}), {x.intent.refund_no}",
                                 f"退款 {yuan(x.intent.amount_fen)}（{x.cause}），{x.intent.refund_no}"),
    f.RefundAccepted: lambda x: ("refund_taken", "the channel took the refund", "渠道受理退款"),
    f.RefundStuck: lambda x: ("refund_stuck", f"the channel could not pay the refund out: {x.why}", "渠道退款卡住"),
    f.RefundConfirmed: lambda x: ("refunded", "the money is back, says the channel", "渠道确认已退款"),
    f.RefundFailed: lambda x: ("refund_failed", f"the refund failed: {x.why}", "退款失败"),
    f.CashReturned: lambda x: ("cash_back", f"{yuan(x.amount_fen)} given back in cash", f"现金退 {yuan(x.amount_fen)}"),
    f.ReceiptDue: lambda x: ("paper_due", f"a paper is due: {x.kind}{f', copy {x.copy}' if x.copy else ''} (job {x.job})",
                             f"应打印：{x.kind}（任务 {x.job}）"),
    f.ReceiptStarted: lambda x: ("paper_started", f"its first byte goes to the printer (job {x.job})", f"开始打印（任务 {x.job}）"),
    f.ReceiptPrinted: lambda x: ("paper", f"on paper (job {x.job}): {PROOFS[min(x.proof, 3)]}", f"已打印（任务 {x.job}）"),
    f.ReceiptUnsure: lambda x: ("paper_unsure", f"unsure whether it came out (job {x.job}): {x.why}",
                                f"不确定是否打出（任务 {x.job}）"),
    f.ReceiptUnstarted: lambda x: ("paper_waits", f"the printer was away before the first byte (job {x.job}): {x.why}",
                                   f"打印机不在，等待（任务 {x.job}）"),
    f.DrawerDue: lambda x: ("drawer_due", f"the drawer is to open: {x.cause}", f"应开钱箱：{x.cause}"),
    f.DrawerStarted: lambda x: ("drawer_kicked", "the kick leaves", "发出开箱脉冲"),
    f.DrawerDone: lambda x: ("drawer", "the drawer was kicked", "钱箱已踢开"),
    f.RecordDue: lambda x: ("record_due", f"a record is due: {x.kind}", f"应签记录：{x.kind}"),
    f.RecordSigned: lambda x: ("record", f"record {x.seq} is signed", f"记录 {x.seq} 已签名"),
    f.Booted: lambda x: ("boot", "the box started in between", "其间本机重启过"),
    f.SignerBroke: lambda x: ("signer", f"the signer broke: {x.why}", "签名器故障"),
}
ASKED_ZH = {"PlaceOrder": "下单", "QueryOrder": "查询", "CloseOrder": "关单", "RefundOrder": "退款", "QueryRefund": "查退款",
            "ChargeCode": "扣付款码", "ChargeCard": "刷卡"}


def question(verb: str, channel: str, took_s: float, answer: str, times: int = 1) -> tuple[str, str]:
    """A question to a channel and its answer, in both languages."""
    many = f" ({times} times the same)" if times > 1 else ""
    return (f"{channel} was asked ({verb}) and said {answer or 'nothing'} after {took_s:.1f} s{many}",
            f"问 {channel}（{ASKED_ZH.get(verb, verb)}），{took_s:.1f} 秒后答：{answer or '无'}"
            f"{f'（共 {times} 次）' if times > 1 else ''}")


def cause(steps: Sequence[Step], *, acked: bool | None) -> tuple[str, str]:
    """What most likely went wrong, in both languages; the first that fits, the worst for a customer first."""
    last: dict[str, Step] = {step.what: step for step in steps}
    asked = [step for step in steps if step.what == "asked"]
    answer = asked[-1].en.partition(" said ")[2] if asked else ""
    if "disputed" in last:
        return last["disputed"].en + ": settle it with the channel", "渠道金额与订单不符：与渠道核对"
    if "held" in last:
        return last["held"].en, "渠道扣了款但说不清归属：与渠道核对"
    if "refund_stuck" in last and "refunded" not in last:
        return last["refund_stuck"].en + ": act at the channel's own page", "渠道退款卡住：到渠道后台处理"
    if "refund_failed" in last and "refunded" not in last:
        return last["refund_failed"].en + ": the money did not go back", "退款失败，钱没有退回"
    late = "late" in last or "paid_undoing" in last or "paid_cancelling" in last
    if late and "refunded" in last:
        return "the customer paid after the till had given up, and the money went back", "收银台放弃之后顾客才付款，款已退回"
    if late and "sale" not in last:
        back = "on its way back" if "refund" in last else "not given back yet"
        return f"the customer paid after the till had given up; the money is {back}", "收银台放弃之后顾客才付款，退款未完"
    if "intent" in last and "paid" not in last:
        return _unpaid(last, answer)
    if "paper_unsure" in last and "paper" not in last:
        why = last["paper_unsure"].en.partition(": ")[2]
        return f"the receipt may not have come out ({why})", "小票可能没打出来：看打印机上的纸"
    if ("paper_due" in last or "paper_waits" in last) and "paper" not in last:
        return "the receipt waits for the printer", "小票在等打印机"
    if "record_due" in last and "record" not in last:
        return "the record waits for the signer", "记录等待签名"
    if acked is False:
        return "the record waits for the cloud", "记录等待上传"
    waited = _slowest(steps)
    return waited or ("nothing went wrong", "没有问题")


def _unpaid(last: dict[str, Step], answer: str) -> tuple[str, str]:
    why = last["cancel"].en.partition(": ")[2] if "cancel" in last else ""
    if "closed" in last:
        reason = {"cashier": ("the cashier cancelled", "收银员取消"), "timeout": ("nobody paid in time", "顾客超时未付"),
                  "reroute": ("another route was taken", "换了通道"), "replaced": ("cash was taken instead", "改收现金")}
        en, zh = reason.get(why, (last["closed"].en, "渠道已关单"))
        return f"not paid: {en}", f"未付款：{zh}"
    if "parked" in last or "overdue" in last:
        return "undecided: the channel has not said whether it was paid; it is asked on", "未决：渠道还没说是否付款，继续查询"
    if "qr" not in last and "charge" not in last:
        return f"the channel gave no QR{f': it said {answer}' if answer else ''}", "渠道没有返回二维码"
    return f"not paid yet{f': the channel said {answer}' if answer else ''}", "还没有付款"


def _slowest(steps: Sequence[Step]) -> tuple[str, str] | None:
    """The longest wait that was not the customer's, when it was long."""
    at = {step.what: step.after_s for step in reversed(steps)}
    waits = [(at[b] - at[a], en, zh) for a, b, en, zh in (
        ("intent", "qr", "the channel took {s:.0f} s to give a QR", "渠道 {s:.0f} 秒后才给二维码"),
        ("paper_due", "paper", "the receipt came {s:.0f} s late", "小票晚了 {s:.0f} 秒"),
        ("record_due", "record", "the record was signed {s:.0f} s late", "记录晚签 {s:.0f} 秒")) if a in at and b in at]
    worst = max(waits, default=(0.0, "", ""))
    return (worst[1].format(s=worst[0]), worst[2].format(s=worst[0])) if worst[0] > SLOW_S else None
