"""The ways into the house: the lock file pins everything by hash, and no machine's own paths stand in it."""

from __future__ import annotations

import re
import subprocess
import tomllib

from tests import ROOT

LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def name_of(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9._-]+", requirement)[0]).lower()  # type: ignore[index]


def test_every_locked_package_has_a_hash() -> None:
    entries = re.split(r"\n(?=[a-z0-9])", "\n" + LOCK)[1:]
    assert len(entries) > 30
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_every_asked_package_is_locked() -> None:
    asked = list(PROJECT["project"]["dependencies"])
    for extra in PROJECT["project"]["optional-dependencies"].values():
        asked += extra
    locked = {name_of(line) for line in LOCK.splitlines() if re.match(r"[a-z0-9]", line)}
    assert {name_of(requirement) for requirement in asked} - locked == set()


def test_the_lock_names_no_index_and_no_path() -> None:
    assert re.findall(r"(?m)^--.*|://|file:/|(?<!via )/[a-z]+/[a-z]+", LOCK) == []


def test_scripts_are_executable_in_the_repository() -> None:
    for script in (".ci/run", "setup/debian.sh"):
        assert (ROOT / script).stat().st_mode & 0o111, script
        assert subprocess.run(["bash", "-n", str(ROOT / script)]).returncode == 0


def test_make_targets_run_what_the_readme_says() -> None:
    promised = {"demo": "-m sim.demo", "test": "pytest -q", "check": "10:tillbox-console@.service",
                "bench": "-m bench"}
    for target, command in promised.items():
        shown = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True).stdout
        assert command in shown, target


def test_data_of_the_simulators_is_shipped() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["sim"]
    for folder in ("data", "counter"):
        for path in (ROOT / "sim" / folder).iterdir():
            if path.suffix in (".csv", ".html", ".css", ".js"):
                assert any(path.relative_to(ROOT / "sim").match(pattern) for pattern in patterns), path.name
