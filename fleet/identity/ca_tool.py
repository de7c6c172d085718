"""`tillfleet ca` and `tillfleet broker`: a tenant's certificates, and the broker's files made from them."""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
from pathlib import Path
from typing import Any

from fleet import broker_files, files
from fleet.identity.ca import Authority, Issued


def add(commands: Any) -> None:
    ca = commands.add_parser("ca", help="the authority of one tenant: certificates of boxes, collectors and the broker")
    verbs = ca.add_subparsers(dest="verb", required=True)

    init = _verb(verbs, "init", _init, "make an authority, and the keys that sign acknowledgements, configuration and commands")
    init.add_argument("--tenant", required=True)

    broker = _verb(verbs, "broker", _broker, "a certificate for the broker")
    broker.add_argument("--host", required=True, action="append", metavar="NAME", help="name or address by which boxes reach it; "
                                                                                      "once for each")
    broker.add_argument("--days", type=int, default=365)

    issue = _verb(verbs, "issue", _issue, "a certificate for the key of a request")
    issue.add_argument("name", help="a box, such as box-1, _collector/c1 or _courier/k1")
    issue.add_argument("--csr", type=Path, metavar="PEM", help="left out: the key is made here, for a part of the cloud, in --out")
    issue.add_argument("--out", required=True, type=Path, metavar="FILE", help="the certificate; without --csr a folder")
    issue.add_argument("--days", type=int, default=365)

    revoke = _verb(verbs, "revoke", _revoke, "end every certificate of a name")
    revoke.add_argument("name", help="a box, such as box-1, _collector/c1 or _courier/k1")
    revoke.add_argument("--serial", default="", help="end this certificate alone")

    listed = _verb(verbs, "list", _list, "what was issued; exit status 1 when something is due or over")
    listed.add_argument("--json", action="store_true")

    files_of = commands.add_parser("broker", help="the files that Mosquitto reads: docs/broker.md")
    files_of.add_argument("folder", type=Path, metavar="DIR", help="of the authority")
    files_of.add_argument("--out", required=True, type=Path, metavar="DIR", help="such as /etc/mosquitto/tillbox")
    files_of.add_argument("--refresh", action="store_true", help="write acl and crl.pem alone, after `issue` or `revoke`")
    files_of.add_argument("--reload", metavar="UNIT", help="with --refresh: systemctl reload UNIT when something changed")
    files_of.add_argument("--port", type=int, default=broker_files.PORT)
    files_of.add_argument("--enrol-port", type=int, default=broker_files.ENROL_PORT)
    files_of.add_argument("--bind", default="", metavar="ADDRESS", help="listen there alone")
    files_of.add_argument("--user", default="mosquitto", help="whom Mosquitto becomes when root starts it")
    files_of.set_defaults(run=_files)


def _verb(verbs: Any, name: str, run: Any, says: str) -> Any:
    parser = verbs.add_parser(name, help=says)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.set_defaults(run=run)
    return parser


def _init(args: argparse.Namespace) -> int:
    made = Authority.made(args.folder, args.tenant)
    print(f"authority of {args.tenant}, SHA-256 of its certificate {made.fingerprint}")
    return 0


def _broker(args: argparse.Namespace) -> int:
    Authority(args.folder).broker(args.host, days=args.days)
    print(f"{args.folder / 'broker.pem'}: {', '.join(args.host)}")
    return 0


def _issue(args: argparse.Namespace) -> int:
    authority = Authority(args.folder)
    name = f"{authority.tenant}/{args.name}"
    use = args.name[1:].partition("/")[0] if args.name.startswith("_") else "box"
    if args.csr is None:
        authority.client(name, args.out, use=use, days=args.days)
    else:
        files.written(args.out, authority.issue(args.csr.read_bytes(), name, use=use, days=args.days))
    print(f"{args.out}: {name}, until {authority.issued(name)[-1].not_after}")
    return 0


def _revoke(args: argparse.Namespace) -> int:
    authority = Authority(args.folder)
    name = f"{authority.tenant}/{args.name}"
    of_name = authority.issued(name)
    if not of_name:
        raise ValueError(f"{name} never had a certificate of this authority")
    if args.serial and args.serial not in {one.serial for one in of_name}:
        raise ValueError(f"{name} never had the certificate {args.serial}")
    done = authority.revoke(name, serial=args.serial)
    print(f"{name}: {done} revoked; the broker knows after `tillfleet broker {args.folder} --out DIR --refresh` and a SIGHUP")
    return 0


def _list(args: argparse.Namespace) -> int:
    authority = Authority(args.folder)
    now = datetime.datetime.now(datetime.UTC).isoformat()
    newest = {(one.name, one.use): one for one in authority.issued() if not one.revoked}
    troubled = 0
    for one in authority.issued():
        state = _state(one, newest.get((one.name, one.use)), now)
        troubled += state in ("due", "over")
        print(json.dumps({**one._asdict(), "renewal_due": one.renewal_due(), "state": state}) if args.json else
              f"{state:9} {one.name:40} {one.use:10} until {one.not_after}  renewal {one.renewal_due()}  {one.serial}")
    crl_until = authority.crl_until()
    crl_due = crl_until - datetime.timedelta(days=60) < datetime.datetime.now(datetime.UTC)
    summary = {"certificates": len(authority.issued()), "troubled": troubled, "crl_until": crl_until.isoformat(timespec="seconds"),
               "crl_due": crl_due, "fingerprint": authority.fingerprint}
    print(json.dumps(summary) if args.json else ", ".join(f"{k} {v}" for k, v in summary.items()))
    return 1 if troubled or crl_due else 0


def _state(one: Issued, newest: Issued | None, now: str) -> str:
    if one.revoked:
        return "revoked"
    if newest != one:
        return "replaced"
    return "over" if one.not_after < now else "due" if one.renewal_due() < now else "good"


def _files(args: argparse.Namespace) -> int:
    authority, out = Authority(args.folder), args.out.absolute()
    if args.refresh:
        changed = broker_files.refreshed(authority, out)
        print("changed" if changed else "unchanged")
        if args.reload:
            _reload(args.reload, out / "reload-due", changed)
        return 0
    broker_files.rendered(authority, out, port=args.port, enrol_port=args.enrol_port, bind=args.bind, user=args.user)
    print(f"{out}: chgrp -R {args.user} it; start mosquitto -c {out}/mosquitto.conf and -c {out}/enrol.conf")
    return 0


def _reload(unit: str, due: Path, changed: bool) -> None:
    """Tell the broker; what it could not be told now it is told the next time, for which `due` stands."""
    if changed:
        files.written(due, "")
    if due.exists():
        try:
            subprocess.run(["systemctl", "reload", unit], check=True)
        except subprocess.CalledProcessError as why:
            raise ValueError(f"{unit} was not reloaded (systemctl: {why.returncode}): the broker does not know yet") from None
        due.unlink()
