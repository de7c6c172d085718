"""Every code of the doctor in one table, in the order in which one thing causes another: the first found is the root.

A cable that is out hides the name server, TLS and every channel; a full card hides a journal that does not grow.  Below
what stops a sale stands what will stop one, then what only a thief would thank for.  `docs/doctor.md` is made of this table
(`python -m device.doctor.codes > docs/doctor.md`).
"""

from __future__ import annotations

from typing import NamedTuple

from device.doctor.words_zh import ZH


class Code(NamedTuple):
    """`fault` names it in a list; `sentence` and `action` are what is said where the check has nothing more exact to say;
    the same in Chinese stands in `words_zh`."""

    code: str
    fault: str
    sentence: str
    action: str


CONFIG = (
    Code("config_unread", "configuration: no file", "The configuration cannot be read.",
         "name the box's file with --config"),
    Code("config_refused", "configuration: refused", "The configuration is refused.",
         "put it right; docs/config.md lists every key"),
    Code("identity_unread", "identity: cannot be read", "The box's identity cannot be read.", "enrol the box anew"),
)
CARD = (
    Code("data_gone", "appliance: no data partition", "The data partition cannot be used: nothing can be sold.",
         "look at the card; when it is new, flash it again; docs/first-boot.md"),
    Code("data_corrupt", "appliance: data partition beyond mending", "The data partition cannot be mended: nothing can be sold.",
         "keep the card: what was sold is on it, untouched; put another one in, docs/first-boot.md"),
    Code("data_readonly", "appliance: data partition read-only", "The data partition can only be read: nothing can be sold.",
         "save the journal, then replace the card: docs/first-boot.md"),
    Code("data_key", "appliance: data partition's folder closed", "The encrypted folder of the data partition does not open.",
         "put the card back into its own board; when that is gone for good, docs/first-boot.md"),
    Code("state_gone", "card: state folder gone", "The state folder cannot be used.", "look at the card"),
    Code("card_readonly", "card: read-only", "The card can only be read: nothing can be sold.",
         "save the journal, then replace the card: a card turns read-only when it is worn out or its file system "
         "is damaged"),
    Code("card_full", "card: full", "The card is full: the box begins nothing new.",
         "connect the box, so that it can send; or make room on the card"),
    Code("state_closed", "card: state folder closed to this user", "The state folder may not be written by this user.",
         "run this as the service's user; if it is, look at the folder's owner"),
)
BOOKS = (
    Code("journal_unreadable", "journal: damaged", "The journal cannot be read.", "see docs/recovery.md"),
    Code("journal_full", "journal: at its quota", "The journal is at its quota: the box begins nothing new.",
         "connect the box, so that records can leave; or raise journal.quota_mb"),
    Code("record_key_gone", "signer: key gone", "The record key is not there.",
         "put that key back; see docs/recovery.md"),
    Code("record_key_unfit", "signer: another key, or cannot be used", "The record key is not the journal's.",
         "see docs/recovery.md"),
    Code("signer_broken", "signer: broken while selling", "The signer does not sign: sales go on, and records wait.",
         "look at the chip and its PIN; docs/record-key.md"),
    Code("chain_broken", "journal: chain of records not whole", "The box's own chain of records does not hold.",
         "see docs/verify.md; keep the card as it is"),
    Code("cash_only", "journal: rows may be lost",
         "Rows of the journal may be lost: only cash is taken until the cloud has spoken.",
         "connect the box to its cloud; docs/recovery.md"),
)
KEYS = (
    Code("seal_unfit", "keys: sealing key unfit", "The sealing key is unfit.",
         "put the sealing key right; see docs/keys.md"),
    Code("seal_gone", "keys: sealing key gone", "The sealing key is gone.",
         "put the sealing key back; see docs/keys.md"),
    Code("sealed_closed", "keys: a sealed key does not open", "A sealed key cannot be opened.",
         "put the sealing key right"),
)
NET = (
    Code("clock_back", "clock: behind the journal", "The clock is behind the journal's last row.",
         "set the clock: timedatectl"),
    Code("clock_off", "clock: wrong", "The clock is wrong.", "set the clock: timedatectl"),
    Code("link_cable", "link: cable or Wi-Fi", "No network cable is plugged in, and no Wi-Fi is joined.",
         "plug the cable in, or join the Wi-Fi; then look at the lights of the socket"),
    Code("link_address", "link: no address", "The network gave the box no way out.",
         "look at the router: does it give addresses? restart it"),
    Code("dns", "DNS: no name server answers", "No name can be looked up.",
         "look at the router and at /etc/resolv.conf"),
)
LINK = (
    Code("cloud_file_gone", "broker: our certificate, key or roots gone",
         "A file for the line to the cloud cannot be read.", "put it there, for the user of the service"),
    Code("certificate_unfit", "certificate: no certificate", "A file holds no readable certificate.",
         "put the right file there"),
    Code("certificate_early", "certificate: not yet", "The certificate of this box is not valid yet.",
         "set the clock; if it is right, the certificate is of another day: tillbox enrol"),
    Code("certificate_over", "certificate: over", "The certificate of this box is over.",
         "have it renewed: tillbox enrol CODE --again"),
    Code("broker_name", "broker: name leads nowhere", "The broker's name leads nowhere.", "look at mqtt.host"),
    Code("broker_line", "broker: no line", "No line to the broker.",
         "look at mqtt.host, mqtt.port and the firewall; is the broker up?"),
    Code("broker_certificate", "TLS: the broker's certificate", "The broker's certificate is not to be trusted.",
         "look at mqtt.ca_file; on the broker: docs/broker.md"),
    Code("broker_tls", "TLS: no encrypted line", "No encrypted line to the broker.",
         "does the broker speak TLS on that port? was this box's certificate revoked?"),
    Code("broker_refuses", "broker: refuses this box", "The broker is there and does not take this box.",
         "look at `tillfleet enrol list` and at the broker's log: name, certificate, rights"),
    Code("ack_key_unfit", "collector: no key to check it by", "No key to check acknowledgements with.",
         "fetch it from the cloud's people"),
    Code("collector_halted", "collector: refuses our records", "The collector does not take this box's records.",
         "see docs/recovery.md; the records are safe here"),
    Code("collector_away", "collector: away", "The line stands, and nobody confirms records.",
         "tell the cloud's people: the collector is away"),
)
CHANNELS = (
    Code("channel_unusable", "channel: set up wrong", "A channel cannot be used as it is set up.",
         "put it right and start the box anew; the rest of it sells"),
    Code("channel_name", "channel: name leads nowhere", "The channel's name leads nowhere.", "look at base_url"),
    Code("channel_line", "channel: no line", "No line to the channel.",
         "look at base_url, the proxy and the firewall"),
    Code("channel_certificate", "TLS: the channel's certificate", "The channel's certificate is not to be trusted.",
         "look at ca_file, and whether a hotel's page or a proxy answers in its place"),
    Code("channel_tls", "TLS: no encrypted line to a channel", "No encrypted line to the channel.",
         "does base_url speak https? look at client_cert_file and the firewall"),
    Code("channel_account", "channel: account", "The channel does not know this account, or it may not take payments.",
         "look at the account's numbers in box.toml, and at its state on the channel's page"),
    Code("channel_signature", "channel: our signature", "The channel does not take our signature.",
         "import this account's key anew: tillbox keys import; compare its serial number with the channel's page"),
    Code("channel_unproven", "channel: its signature", "The channel's answer does not prove itself.",
         "look at platform_key_id and platform_key_file: the channel may have a new key; or a hotel's page answers"),
    Code("channel_answer", "channel: its answer", "The channel answers, and not as it should.",
         "wait and try again; if it stays, ask the channel's people"),
    Code("channel_silent", "channel: no answer", "The channel takes the question and does not answer.",
         "wait and try again; sell by another channel meanwhile"),
    Code("channel_proof", "channel: does not know us", "The channel did not prove that it knows us.",
         "look at the account's numbers and keys here, and at its state on the channel's page"),
    Code("account_without_key", "channel: open orders without a key",
         "Orders are open under an account whose key is not here.", "set that account up again, import its key"),
)
COUNTER = (
    Code("printer_gone", "printer: cable or power", "The printer is not there.", "look at its cable and its power"),
    Code("printer_closed", "printer: port closed to this user", "The printer's port may not be used by this user.",
         "run this as the service's user; if it is, see that 60-tillbox.rules is installed"),
    Code("printer_held", "printer: port held", "Another program holds the printer's port.", "end that program"),
    Code("printer_silent", "printer: does not answer", "The printer is connected and does not answer.",
         "switch the printer off and on again; is another computer connected to it?"),
    Code("printer_cover_open", "printer: cover open", "The printer's cover is open.", "close the cover"),
    Code("printer_paper_out", "printer: paper out", "The printer has no paper.", "put in a new roll"),
    Code("printer_cutter", "printer: cutter", "The printer's cutter is stuck.",
         "switch it off, clear the cutter, switch it on"),
    Code("printer_hot", "printer: head hot", "The print head is too hot.", "wait a minute"),
    Code("printer_offline", "printer: off-line", "The printer is off-line.", "press the printer's on-line key"),
    Code("printer_error", "printer: error", "The printer reports an error.", "switch the printer off and on again"),
    Code("printer_model", "printer: wrong model", "Another printer than the configured one is connected.",
         "connect the right printer, or name its model in box.toml"),
    Code("printer_slow", "printer: slow to confirm", "The printer is slow to confirm a receipt.",
         "look whether it prints"),
    Code("scanner_gone", "scanner: gone", "The scanner is not there.", "plug it in"),
    Code("scanner_twins", "scanner: twins", "Two equal scanners, and the configuration does not tell them apart.",
         "name each by its port: tillbox scan list"),
    Code("scanner_layout", "scanner: keyboard layout", "The scanner types for another country's keyboard.",
         "scan its set-up code for a US keyboard, or set scanner.layout"),
    Code("scanner_misreads", "scanner: misreads", "The scanner misreads.", "clean its window"),
    Code("scanner_closed", "scanner: node closed to this user", "The scanner may not be read by this user.",
         "run this as the service's user; if it is, see that 60-tillbox.rules is installed"),
    Code("scanner_held", "scanner: node held", "Another program holds the scanner.", "end that program"),
    Code("keyboard_strange", "keyboard: unknown", "A keyboard that nobody set up is plugged in; it types into nothing.",
         "pull it out; if it is a new scanner: tillbox scan pair"),
    Code("keypad_gone", "keypad: gone", "The keypad is not there.", "plug it in"),
    Code("keypad_closed", "keypad: node closed to this user", "The keypad may not be read by this user.",
         "run this as the service's user; if it is, see that 60-tillbox.rules is installed"),
    Code("display_gone", "display: gone", "The display is not there.",
         "look at its cable, and force the mode on the kernel's command line"),
    Code("display_closed", "display: closed to this user", "The display may not be written by this user.",
         "run this as the service's user; if it is, see that 60-tillbox.rules is installed"),
    Code("display_geometry", "display: wrong geometry",
         "The display has a size or pixel format that nothing can be shown on.",
         "set the mode on the kernel's command line; docs/config.md [display]"),
    Code("drawer_open", "drawer: stands open", "The drawer stands open.",
         "close it; if it is closed, look at its sensor's wire and printer.drawer_sensor"),
    Code("drawer_stuck", "drawer: does not open", "The drawer was kicked and did not open.",
         "look at its lock, its cable to the printer, and printer.drawer_pin"),
    Code("sound_gone", "sound: silent", "The loudspeaker is silent.", "look at its cable and at sound.device"),
    Code("device_gone", "another device: gone", "A device is not there.",
         "plug it in, or name the right path in box.toml"),
    Code("device_closed", "another device: closed to this user", "A device may not be used by this user.",
         "run this as the service's user; if it is, see that 60-tillbox.rules is installed"),
)
COPY = (
    Code("copy_gone", "second copy: gone", "The journal's second copy cannot be used: nothing guards the journal.",
         "look at its partition; docs/recovery.md"),
    Code("copy_damaged", "second copy: damaged", "The journal's second copy is damaged.",
         "start the box: it lays the copy anew; then look at its card"),
    Code("journal_short", "journal: shorter than its copy", "The journal lacks rows that its second copy has.",
         "start the box: it takes them from the copy; then look at the card; docs/recovery.md"),
    Code("copy_behind", "second copy: behind", "The journal's second copy is behind the journal.",
         "start the box: it brings the copy up; docs/recovery.md"),
)
BOX = (
    Code("daemon_mute", "watchdog: the daemon hangs", "The daemon holds its socket and does not answer.",
         "look at journalctl -u tillbox; systemd starts it again when its watchdog is not fed"),
    Code("restart_loop", "watchdog: the daemon restarts again and again",
         "The daemon was started again and again within ten minutes.",
         "read the last words of each start: journalctl -u tillbox"),
    Code("prices_gone", "prices: no list", "There is no price list: only amounts sell.", "put the price list there"),
    Code("prices_refused", "prices: refused", "The price list is refused.", "put the price list right"),
    Code("rules_gone", "rules: gone", "The rule table cannot be read.", "put the fleet's rule table there"),
    Code("push_refused", "config from the cloud: refused", "A pushed configuration was refused.",
         "put it right in the cloud and issue it anew"),
    Code("push_undone", "config from the cloud: taken back", "A pushed configuration was taken back.",
         "find out why and issue it anew"),
    Code("update_fell_back", "update: fell back",
         "An older software runs than the one that ran before: an update did not hold.",
         "find out why in the journal of the other slot, and update anew"),
    Code("update_undone", "update: taken back", "A release did not prove itself and was taken back.",
         "put right what it says, and push it again"),
    Code("update_refused", "update: refused", "A release was refused.", "sign a release for this box"),
    Code("update_lost", "update: lost", "What the cloud asked for of an update cannot be read.", "push the release again"),
    Code("update_waits", "update: waits for a restart", "The daemon still runs the software of before the update.",
         "restart the box between two customers"),
    Code("config_waits", "config: waits for a restart", "The configuration file is newer than the running daemon.",
         "restart the box: systemctl restart tillbox"),
    Code("card_errors", "card: errors", "The card's file system has counted errors.",
         "save the journal, check the file system, replace the card"),
    Code("card_worn", "card: worn", "The card is worn out.",
         "replace the card soon; the journal goes along: docs/recovery.md"),
    Code("card_low", "card: low", "Little is free on the card.", "see what fills it, before the till stops"),
    Code("records_wait", "records wait", "Records have waited long for the cloud.", "look at link and collector"),
    Code("printer_paper_low", "printer: paper low", "The printer's roll is near its end.", "have a new roll at hand"),
    Code("command_key_gone", "commands: no key", "No command of the cloud is obeyed.",
         "fetch the key from the cloud's people"),
    Code("renewal_late", "certificate: renewal late", "The certificate was due for renewal.",
         "have the box on the line for a day"),
    Code("certificate_soon", "certificate: ends soon", "The certificate of this box ends soon.",
         "have it renewed before"),
    Code("watchdog_off", "watchdog: off", "The hardware watchdog is off: a hung box stays hung.",
         "set RuntimeWatchdogSec in systemd's system.conf"),
    Code("watchdog_bit", "watchdog: reset the box", "The last restart of the machine was the watchdog's.",
         "look what hung: journalctl -b -1"),
    Code("part_unwell", "another part", "A part is not well.", "see its sentence in journalctl -u tillbox"),
    Code("daemon_down", "daemon: does not run", "The daemon does not run: nothing is sold.",
         "systemctl start tillbox; why it ended: journalctl -u tillbox"),
)
CARE = (
    Code("plain_merchant_key", "keys: a merchant's key lies plain", "A merchant's key lies plain.",
         "tillbox keys import, then destroy it there"),
    Code("plain_twice", "keys: sealed and plain", "A sealed key lies plain as well.", "destroy it there"),
    Code("key_before", "keys: an old key is kept", "An old key is not tried any more.", "tillbox keys drop"),
    Code("key_open", "keys: readable by others", "A key may be read by others.", "chmod 600"),
    Code("config_open", "configuration: readable by others",
         "The configuration holds secrets and may be read by others.", "chmod 600"),
    Code("broker_plain", "broker: not encrypted", "The line to the broker is not encrypted.", "name mqtt.ca_file"),
    Code("clock_unset", "clock: nobody has set it", "No time server has set the clock since the start.",
         "connect the box, or see timedatectl: payment channels refuse what is five minutes off"),
)
# Only to know: never the root of anything.
TO_KNOW = (
    Code("training", "practice", "This box is set up to practise: nothing is sold.", ""),
    Code("journal_new", "journal: none yet", "There is no journal yet: the next start makes one.", ""),
    Code("parked", "payments set aside", "Payments without an end were set aside.", ""),
    Code("update_runs", "update: under way", "A release is on its way.", ""),
    Code("push_waits", "config from the cloud: waits", "A pushed configuration waits.", ""),
    Code("not_enrolled", "identity: none", "This box is not enrolled.", ""),
    Code("keys_left", "keys: of an earlier account", "Keys of an earlier account are kept.", ""),
    Code("sealed_unseen", "keys: not looked into", "Sealed keys were not looked into.", ""),
    Code("seal_same_card", "keys: sealing key on the same card", "The sealing key lies on the same card.", ""),
    Code("seal_without_tpm", "keys: no TPM", "Without a TPM systemd's key lies on the card.", ""),
    Code("copy_same_card", "second copy: on the same card", "The second copy lies on the same card as the journal.",
         ""),
    Code("thief", "what a thief could do", "What a merchant's key would be worth to a thief.", ""),
)
ROOTS = CONFIG + CARD + BOOKS + KEYS + NET + LINK + CHANNELS + COUNTER + COPY + BOX + CARE
CODES: dict[str, Code] = {row.code: row for row in ROOTS + TO_KNOW}
RANK: dict[str, int] = {row.code: n for n, row in enumerate(ROOTS + TO_KNOW)}
WELL = Code("ok", "", "Everything that was tried is well.", "")


def page() -> str:
    """`docs/doctor.md`."""
    heads = (("The configuration", CONFIG), ("The card", CARD), ("Journal and signer", BOOKS), ("Sealed keys", KEYS),
             ("Clock, link, names", NET), ("The line to the cloud", LINK), ("Payment channels", CHANNELS),
             ("On the counter", COUNTER),
             ("The second copy", COPY), ("Daemon, update, wear", BOX), ("Care", CARE))
    lines = [INTRO]
    for head, rows in heads:
        lines += [f"### {head}\n", "| fault | code | one sentence | next action |", "|---|---|---|---|",
                  *(f"| {row.fault} | `{row.code}` | {row.sentence} {ZH[row.code][0]} | {row.action}; {ZH[row.code][1]} |"
                    for row in rows), ""]
    lines += ["### Only to know\n", "| what | code |", "|---|---|", *(f"| {row.fault} | `{row.code}` |" for row in TO_KNOW)]
    return "\n".join(lines) + "\n"


INTRO = """\
# The doctor

Made by `python -m device.doctor.codes > docs/doctor.md`; a test holds it true.

    tillbox doctor [--config FILE] [--json] [--offline] [--root DIR]

`tillbox doctor` tries everything that a sale needs and ends in one sentence, one next action, one code: that of the
**root**. A cable that is out hides the name server, TLS, the broker and every channel; ten symptoms are not ten
faults. All findings stand above it, the root's own among them. Exit status: 0 nothing is wrong, 1 something is, 2
the arguments do not serve.

`--json` prints one object on one line:

| key | is |
|---|---|
| `code part sentence action` | the root; `ok`, `box` and no action when nothing is wrong |
| `sentence_zh action_zh` | the same for the cashier, without the details |
| `findings` | everything that was found, each `{code, part, sentence, action}`; without `action` it is only something to know |
| `checks wrong to_know` | how much was looked at, and how many findings with and without an action |

It works with the daemon alive or dead. A living daemon is asked over its socket; what it holds (devices, journal,
the line's name) is left alone. With a dead one the doctor opens each port itself, asks real-time questions only,
and lets go: it prints nothing, kicks no drawer, takes no lock, makes no file. Lines are tried in the end: name,
connection, certificate, clock, and one signed question to each channel after an order that was never made, which
moves nothing and proves that both sides take each other's signature. The broker is greeted by TLS and left before a
word of MQTT, for a second client of this box's name would end the daemon's own line. Every wait is bounded; the
whole takes at most 40 seconds, a few when all is well. `--offline` leaves the lines out. `--root DIR` looks for
`/sys`, `/proc`, `/etc` and `/run` below DIR: for a card in a reader, and for tests.

Who asks from afar (`tillfleet cmd BOX doctor`) gets the findings without the lines.

## The opening ticket

With `opening_ticket = true` the daemon has the doctor look before the first sale of a business day, at its start
and at the first key or scan of a new day, and prints a slip: all green, or the parts that are not, each with its
next action. A sale waits for none of it.

## The codes, in the order of their causes

The first in this order that was found, and that has something to do about it, is the root.
"""


if __name__ == "__main__":
    print(page(), end="")
