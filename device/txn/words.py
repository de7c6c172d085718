"""Every sentence the core says to a person, Chinese and English side by side."""

from __future__ import annotations

WORDS: dict[str, tuple[str, str]] = {
    "welcome": ("欢迎光临", "Welcome"),
    "scan_goods": ("请扫描商品", "Scan goods to begin"),
    "unknown_code": ("未知条码 {code}：请核对价目表", "Unknown code {code}: not in the price list"),
    "bad_scan": ("扫描无效：{why}", "Scan dropped: {why}"),
    "busy_paying": ("付款进行中：请先完成、取消或挂起", "Payment in progress: finish, cancel or park it first"),
    "payment_code_idle": ("这是付款码：请先按 CODE", "That is a payment code: press CODE first"),
    "code_not_here": ("此店尚不能扫顾客付款码", "This shop cannot take customer codes yet"),
    "qty_set": ("数量 {n}：请扫描商品", "Quantity {n}: scan the goods"),
    "qty_bad": ("数量须为 1 到 999", "Quantity must be 1 to 999"),
    "amount_bad": ("金额须为 1 分到 {max}", "The amount must be 0.01 to {max}"),
    "lines_full": ("购物篮已满（200 行）", "The basket is full (200 lines)"),
    "line_unknown": ("没有第 {n} 行", "There is no line {n}"),
    "line_voided": ("已删除：{name}", "Removed: {name}"),
    "cleared": ("已清空", "Basket cleared"),
    "empty": ("购物篮为空", "The basket is empty"),
    "nothing_due": ("没有应付金额", "Nothing is due"),
    "no_channel": ("未配置该支付渠道", "That payment channel is not set up"),
    "placing": ("正在生成付款码…", "Preparing your payment code…"),
    "placing_slow": ("支付渠道无应答，正在重试；可收现金", "The payment channel does not answer; trying on. Cash still works"),
    "scan_to_pay": ("请用{wallet}扫码付款", "Scan with {wallet} to pay"),
    "cancelling": ("正在取消，请勿付款", "Cancelling, please do not pay"),
    "cancelled": ("付款已取消", "Payment cancelled"),
    "refused": ("渠道拒绝：{why}", "The channel refused: {why}"),
    "asking": ("取消时已付款：ENTER 交货，CANCEL 退款", "Paid while cancelling: ENTER goods go, CANCEL money back"),
    "paid": ("付款成功", "Paid"),
    "change": ("找零 {change}", "Change {change}"),
    "part_cash": ("已收现金 {paid}，尚欠 {due}", "Cash {paid} taken, {due} still due"),
    "cash_back": ("请退还现金 {cash}", "Give back {cash} in cash"),
    "cash_replaces": ("已改收现金，找零 {change}；若稍后到账将自动退回",
                      "Cash taken instead, change {change}; a late payment will be given back"),
    "checking": ("正在向渠道查询", "Asking the channel now"),
    "held": ("已挂单，编号 {slot}", "Held as number {slot}"),
    "held_unknown": ("没有挂单 {slot}", "Nothing is held as {slot}"),
    "held_gone": ("此挂单已取回", "That slip's basket was brought back before"),
    "recalled": ("已取回挂单 {slot}", "Recalled number {slot}"),
    "basket_busy": ("请先结清当前购物篮", "Finish the basket on the counter first"),
    "tenders_open": ("已收部分款项：请先付清或取消", "Part of it is paid: settle or cancel it first"),
    "park_ask": ("货给顾客了吗？ENTER 已给，CANCEL 未给", "Did the goods go? ENTER given, CANCEL kept"),
    "parked": ("已转挂，单据 {slip}", "Set aside as slip {slip}"),
    "nothing_open": ("没有进行中的付款", "No payment is open"),
    "refund_scan": ("退款：请扫描小票", "Refund: scan the receipt"),
    "reprint_scan": ("补打：请扫描小票或报表，或报表号加 Z、X", "Reprint: scan the receipt or report, or its number and Z or X"),
    "refund_pick": ("可退 {left}：ENTER 全退，或输入金额再按 ENTER", "Up to {left}: ENTER for all, or type an amount, then ENTER"),
    "refund_looking": ("正在查找 {no}", "Looking for {no}"),
    "refund_unknown": ("本机没有此单 {no}：跨机退款需联网授权",
                       "Order {no} is not of this box: another box's sale needs the cloud"),
    "refund_not_receipt": ("这不是小票单号", "That is not a receipt number"),
    "refund_over": ("超过可退金额 {left}", "More than can be given back ({left})"),
    "refund_none": ("已全部退款", "It was given back already"),
    "refund_parts": ("部分退款次数已达上限", "Too many part refunds of one order"),
    "refund_old": ("已超过 {days} 天退款期限", "Paid more than {days} days ago: the channel takes no refund"),
    "refund_wait": ("上一笔退款未完成，请稍候", "The last refund is not finished yet: wait a moment"),
    "refunding": ("退款处理中 {amount}", "Refunding {amount}"),
    "refunded": ("已退款 {amount}", "Refunded {amount}"),
    "refund_failed": ("退款失败：{why}", "The refund failed: {why}"),
    "late_paid": ("单 {no} 迟到的付款正在自动退回", "A late payment of {no} is being given back"),
    "parked_paid": ("转挂单 {slip} 已付款", "Parked slip {slip} is paid"),
    "parked_lost": ("转挂单 {slip} 未付款，货已交出", "Parked slip {slip} was never paid, goods are gone"),
    "reprint_none": ("没有可补打的小票", "There is no such receipt to print again"),
    "reprint": ("补打小票（COPY {n}）", "Printing again as COPY {n}"),
    "paper_unsure": ("小票未确认打印：按 REPRINT 打印副本", "The receipt may not be whole: REPRINT prints a COPY"),
    "drawer": ("钱箱已开", "Drawer opened"),
    "x_report": ("X 报表 {n}", "X report {n}"),
    "z_report": ("Z 报表 {n}：营业日已结", "Z report {n}: the day is closed"),
    "z_open": ("尚有未结的购物篮", "A basket is still open"),
    "cancel_what": ("没有可取消的", "Nothing to cancel"),
    "key_unknown": ("未知按键 {key}", "Unknown key {key}"),
    "key_unfit": ("此时不能按 {key}", "{key} does nothing here"),
    "digits_full": ("数字过长", "Too many digits"),
    "amount_less": ("到账 {paid}，少于应付 {due}：勿交货，PARK 转挂后核对",
                    "Only {paid} of {due} was paid: keep the goods, PARK it and ask the channel"),
    "amount_more": ("到账 {paid}，多于应付 {due}：PARK 转挂后核对", "{paid} was paid for {due}: PARK it and ask the channel"),
    "training_cash": ("培训模式仅收现金", "Training mode takes cash only: no channel is asked"),
    "journal_full": ("存储已满：请联网上传，暂不能开新单", "The card is full: let the box send its records, nothing new can begin"),
    "cash_only": ("仅收现金", "Cash only for now"),
}

HEALTH: dict[tuple[str, str], tuple[str, str]] = {
    ("printer", "paper_out"): ("打印机缺纸", "Printer out of paper"),
    ("printer", "paper_low"): ("纸将用尽", "Paper is low"),
    ("printer", "cover_open"): ("打印机盖未关", "Printer cover open"),
    ("printer", "off"): ("打印机未响应", "Printer does not answer"),
    ("printer", "gone"): ("打印机未连接", "Printer not connected"),
    ("scanner", "gone"): ("扫描器未连接", "Scanner not connected"),
    ("keypad", "gone"): ("键盘未连接", "Keypad not connected"),
    ("link", "down"): ("离线：记录待上传", "Offline: records wait"),
    ("link", "unheard"): ("云端未在线：记录待上传", "Cloud away: records wait"),
}

WALLETS = {"wechat": ("微信", "WeChat"), "alipay": ("支付宝", "Alipay"), "unionpay": ("云闪付", "UnionPay"),
           "gateway": ("任意钱包", "any wallet"), "cash": ("现金", "Cash"), "rounding": ("抹零", "Rounding")}


def say(key: str, /, **values: object) -> tuple[str, str]:
    """The sentence `key` in Chinese and English.  KeyError for a sentence nobody wrote."""
    zh, en = WORDS[key]
    return zh.format(**values), en.format(**values)


def disputed_words(due_fen: int, paid_fen: int) -> tuple[str, str]:
    """What to do when the channel says PAID with another amount than the order's."""
    return say("amount_less" if paid_fen < due_fen else "amount_more", paid=yuan(paid_fen), due=yuan(due_fen))


def yuan(fen: int) -> str:
    """`¥12.34` of 1234 fen."""
    sign = "-" if fen < 0 else ""
    return f"{sign}¥{abs(fen) // 100}.{abs(fen) % 100:02d}"
