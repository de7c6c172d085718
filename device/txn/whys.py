"""Reasons that our own drivers and cloud give in English, in Chinese: a sentence at the till is in one language.

A channel's own words are not here: they are shown as it said them.
"""

from __future__ import annotations

WHYS = {
    # scans
    "the scan is empty": "扫描为空",
    "the scan is blank": "扫描为空白",
    "the scan is longer than 200 characters: scan one code at a time": "条码过长，请一次只扫一个",
    "the scan holds control characters: it is no goods and no payment code": "含控制字符，不是商品码也不是付款码",
    "the scan holds characters other than ASCII: set the scanner to a US keyboard or to serial mode":
        "含非 ASCII 字符，请将扫描器设为美式键盘或串口模式",
    "the scan broke off in the middle: scan it again": "扫描中断，请重扫",
    "the scan broke off before its end: scan it again": "扫描不完整，请重扫",
    "typed by hand, not scanned: use the keypad": "手工输入，不是扫描：请用键盘",
    "the scanner types for another country's keyboard: set it to US, or say its layout":
        "扫描器为其他国家键盘：请设为美式，或在配置中写明 layout",
    "keys were lost on the way from the scanner: scan it again": "扫描丢失字符，请重扫",
    "the scanner typed an Alt code that is no character: set it to a US keyboard": "扫描器输出无效字符，请设为美式键盘",
    "the scanner was unplugged in the middle of a scan: scan it again": "扫描器被拔出，请重扫",
    # another box's sale
    "the line to the cloud is down": "与云端的线路不通",
    "the cloud does not answer": "云端无应答",
    "the cloud does not say why": "云端未说明原因",
    "the cloud does not know that sale, or not yet": "云端没有这笔单，或尚未收到",
    "cash and cards go back at their own box": "现金、银行卡须去原机退",
    "nothing is left of it, or another box is giving it back just now": "已无可退，或另一台机正在退",
    "its sale cannot be read here": "本机读不出该单",
    # cards
    "the card terminal does not answer": "刷卡机无应答",
    "the line to the card terminal is bad: the sale did not reach it": "刷卡机线路不良，未发起收款",
    "the card terminal is busy with another payment": "刷卡机正忙",
    "the card terminal does not take this request": "刷卡机不接受此请求",
    "the card was declined": "银行卡被拒",
    "it was cancelled at the card terminal": "已在刷卡机上取消",
    "the card terminal waits for its bank": "刷卡机正在等银行",
    "the card terminal cannot void it any more": "刷卡机已不能撤销",
    "the bank declined the card": "银行拒绝此卡",
    "the card cannot be used for this": "此卡不支持此交易",
    "the card's number is wrong": "卡号有误",
    "the card has expired": "卡已过期",
    "the PIN was wrong": "密码错误",
    "the PIN was wrong too often": "密码错误次数过多",
    "the card is reported lost": "此卡已挂失",
    "the card is reported stolen": "此卡已报失窃",
    "not enough money on the card": "卡内余额不足",
    "more than the card's limit": "超过此卡限额",
    "the card was used too often today": "此卡今日交易次数过多",
    "the card's bank does not answer": "发卡行无应答",
    "the bank has a fault": "银行系统故障",
    # a channel's bare word on a refund
    "refused": "渠道拒绝",
    "abnormal": "退款异常",
}
