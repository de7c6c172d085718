"""Every command of the technician's console, as one literal table: what the parser takes, help tells, completion offers and
docs/technician.md shows.  Pure: names the function that does a command, and does not load it.

A level holds what stands below it: `look` reads, `work` tries the devices and sets things, `full` ends or changes what the box is.
No command marks an order as paid, moves money, or takes a shell's line.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from device.console.challenge import LEVELS

Told = tuple[str, str]                   # Chinese, English


class Command(NamedTuple):
    """`args` is a pattern of the words behind the name; `asks` how help writes them; `dangerous` wants the box's name typed;
    `dry` what would be done; `does` module and function; `tried` examples for the manual, with `ORDER` for what a test fills in.
    """

    name: str
    asks: str
    args: str
    level: str
    help: Told
    dry: Told
    does: str
    tried: tuple[str, ...]
    dangerous: bool = False


COMMANDS: tuple[Command, ...] = (
    Command("status", "", "", "look",
            ("收银机现在怎样：阶段、健康、等待中的事", "how the box is: phase, health, what waits and how long"),
            ("只读：问守护进程；它不在时看日志账", "reads only: asks the daemon, or looks at the journal when it is dead"),
            "looking:status", ("status",)),
    Command("doctor", "[online]", r"(online)?", "look",
            ("哪里坏了，下一步做什么；online 也试网络", "what is wrong and what to do next; online tries the lines too"),
            ("只读：走一遍检查", "reads only: walks through the checks"),
            "looking:doctor", ("doctor",)),
    Command("devices", "", "", "look",
            ("每个设备：怎么接、在哪里、怎样", "each device: how it is attached, where, and how it is"),
            ("只读：看配置与设备节点", "reads only: looks at the configuration and the device nodes"),
            "looking:devices", ("devices",)),
    Command("queue", "", "", "look",
            ("等着上传、打印、决定的，以及等了多久", "what waits to be sent, printed or decided, and its age"),
            ("只读", "reads only"),
            "looking:queue", ("queue",)),
    Command("logs", "[N]", r"([1-9][0-9]{0,2})?", "look",
            ("最近的 N 行日志（40），已遮盖", "the last N log lines (40), masked"),
            ("只读", "reads only"),
            "looking:logs", ("logs", "logs 5")),
    Command("journal verify", "", "", "look",
            ("走一遍收银机自己的记录链", "walks over the box's own chain of records"),
            ("只读：验每个签名与每个链环", "reads only: checks each signature and each link"),
            "looking:journal_verify", ("journal verify",)),
    Command("timeline", "ORDER", r"[0-9A-Za-z][0-9A-Za-z-]{3,39}", "look",
            ("一笔付款的每一步与时间", "each step of one payment, with its times"),
            ("只读：按单号查日志账", "reads only: finds the order in the journal"),
            "looking:timeline", ("timeline ORDER",)),
    Command("config show", "[WORD]", r"([a-z0-9_.]{1,60})?", "look",
            ("现行配置，密文已遮盖；WORD 只看含它的行", "what the box runs with, secrets masked; WORD: lines with it"),
            ("只读", "reads only"),
            "settings:show_all", ("config show printer", "config show")),
    Command("config diff", "", "", "look",
            ("现行配置与 box.toml 及默认值不同之处", "where it differs from the defaults, and who said so"),
            ("只读", "reads only"),
            "settings:diff", ("config diff",)),
    Command("config why", "KEY", r"[a-z0-9_.]{1,80}", "look",
            ("一个值是哪一层给的", "which layer gave one value"),
            ("只读", "reads only"),
            "settings:why", ("config why printer.kind",)),
    Command("net", "", "", "look",
            ("地址、Wi-Fi、代理、时钟，并逐个试所需的目标", "addresses, Wi-Fi, proxy, clock; each needed target tried"),
            ("会连一次经纪人与各渠道，不带密钥", "would open one line to the broker and to each channel, and send no secret"),
            "net:net", ("net",)),
    Command("scan test", "", "", "work",
            ("请扫一个码，判断扫描枪", "asks for one scan and judges the scanner"),
            ("会等一次扫描 30 秒；不卖任何东西", "would wait 30 s for one scan; nothing is sold"),
            "trying:scan", ("scan test",)),
    Command("print test", "", "", "work",
            ("打印一张测试条", "prints a test slip"),
            ("会打印一张测试条", "would print one test slip"),
            "trying:print_slip", ("print test",)),
    Command("display test", "", "", "work",
            ("在顾客屏上显示一个数，请读出来", "shows a number on the customer's display and asks for it"),
            ("守护进程停着时才画屏", "would draw one frame, while the daemon is stopped"),
            "trying:display", ("display test",)),
    Command("drawer test", "", "", "work",
            ("弹一次钱箱，记为测试", "opens the drawer once, with the cause on record"),
            ("会弹一次钱箱", "would open the drawer once"),
            "trying:drawer", ("drawer test",)),
    Command("bundle", "[print]", r"(print)?", "work",
            ("给总部的诊断包：已遮盖，用总部的钥匙加密", "a bundle for head office: masked, encrypted to the fleet's key"),
            ("会在状态目录里写一个加密文件；print 也打在屏上", "would write one encrypted file; print shows it here, too"),
            "bundle:bundle", ("bundle",)),
    Command("journal export", "[N] [print]", r"([1-9][0-9]{0,9})?( print)?|print", "work",
            ("云端还没有的记录（或从第 N 条起），用总部的钥匙加密",
             "the records that the cloud has not (or from N on), encrypted to the fleet's key"),
            ("会在状态目录里写一个加密文件；print 也打在屏上", "would write one encrypted file; print shows it here, too"),
            "bundle:journal_export", ("journal export", "journal export 1 print")),
    Command("enrol", "HOST:PORT", r"[0-9A-Za-z\[][^\s]{2,259}", "full",
            ("用一次性码入网；码在提示后输入，不回显",
             "become a box of the fleet; the one-use code is asked for and not shown"),
            ("会向该地址请求身份，装入后重启生效",
             "would ask the desk at that place for an identity, in force after a restart"),
            "settings:enrol", ("enrol 127.0.0.1:9 --dry",), dangerous=True),
    Command("swap", "", "", "full",
            ("换机：说清旧机还欠什么，立刻上传", "the box is being replaced: what it still owes, and sends what waits"),
            ("会说明未上传与未决的，并催上传", "would say what is unsent and undecided, and send what waits"),
            "leaving:swap", ("swap",), dangerous=True),
    Command("handover", "[WORDS]", r".{0,200}", "work",
            ("离场：签名的上门报告（做了什么、测试结果），并打印",
             "leaving: a signed report of the visit (what was done, tests), printed"),
            ("会写一条 visit 记录并打印报告", "would write a visit record and print the report"),
            "leaving:handover", ("handover printer cable replaced",)),
    Command("reboot", "", "", "full",
            ("没有顾客时重启收银机，只一次", "restarts the box when nobody stands at it, once"),
            ("会在空闲时重启", "would restart the box as soon as it is idle"),
            "leaving:reboot", ("reboot --dry",), dangerous=True),
    Command("lang", "zh|en", r"zh|en", "",
            ("换语言", "changes the language of this session"),
            ("只改本次会话", "changes this session alone"),
            "session", ("lang zh", "lang en")),
    Command("help", "[COMMAND]", r"[A-Za-z ]{0,40}", "",
            ("这张表；或一个命令的说明", "this list; or what one command does"),
            ("只读", "reads only"),
            "session", ("help", "help print test")),
    Command("exit", "", "", "",
            ("结束会话", "ends the session"),
            ("结束会话", "ends the session"),
            "session", ("exit",)),
)
BY_NAME = {one.name: one for one in COMMANDS}
DRY = "--dry"


class Wrong(ValueError):
    """A line that is no command; the pair of sentences says why."""

    def __init__(self, zh: str, en: str) -> None:
        super().__init__(en)
        self.told = (zh, en)


class Said(NamedTuple):
    """A line understood: the command, its words as one text, and whether only its dry form is wanted."""

    command: Command
    args: str
    dry: bool


def parsed(line: str) -> Said:
    """What a typed line says.  Wrong, with what is wrong and a hint, when it is no command."""
    words = line.split()
    dry = DRY in words
    words = [word for word in words if word != DRY]
    for count in (2, 1):
        command = BY_NAME.get(" ".join(words[:count]).lower())
        if command is not None and len(words) >= count:
            args = " ".join(words[count:])
            if not re.fullmatch(command.args, args):
                raise Wrong(f"{command.name} 这样用：{command.name} {command.asks}".rstrip(),
                            f"write it as: {command.name} {command.asks}".rstrip())
            return Said(command, args, dry)
    near = nearest(" ".join(words))
    raise Wrong(f"没有这个命令{'；是 ' + near + ' 吗？' if near else ''}，help 列出全部",
                f"that is no command{f'; did you mean {near}?' if near else ''} (help lists all)")


def nearest(text: str) -> str:
    """The command that `text` most likely meant, "" for none."""
    text = text.lower()[:40]
    begins = [name for name in BY_NAME if text and (name.startswith(text) or any(w.startswith(text) for w in name.split()))]
    if begins:
        return begins[0]
    return next((name for name in BY_NAME if len(text) > 2 and _one_off(text, name)), "")


def completed(head: str) -> list[str]:
    """Every line that `head` may become, for the editor."""
    typed = head.lstrip().lower()
    found = [name + " " for name in BY_NAME if name.startswith(typed) and name != typed.rstrip()]
    if typed.startswith("help "):
        found = [f"help {name}" for name in BY_NAME if name.startswith(typed[5:])]
    if typed.startswith("lang "):
        found = [one for one in ("lang zh", "lang en") if one.startswith(typed)]
    return found


def allowed(command: Command, level: str) -> bool:
    """Whether a session of `level` ("" before a login) may give it."""
    return not command.level or (level in LEVELS and LEVELS.index(level) >= LEVELS.index(command.level))


def _one_off(a: str, b: str) -> bool:
    """Whether one letter more, less, other, or two swapped make `a` of `b`."""
    if abs(len(a) - len(b)) > 1:
        return False
    at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return (a[at + 1:] == b[at + 1:] or a[at:] == b[at + 1:] or a[at + 1:] == b[at:]
            or (a[at:at + 2] == b[at:at + 2][::-1] and a[at + 2:] == b[at + 2:]))
