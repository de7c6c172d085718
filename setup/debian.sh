#!/usr/bin/env bash
# Makes a fresh Debian 12 machine ready for `make demo` and `make test`: Debian's packages, then .venv/ from the lock file.
# Run again, it does nothing: what was done is stamped in .venv/.  Speaks on standard error only.
#
#   PYTHON=/path/to/python3   another interpreter, 3.11 or newer, for .venv/
#   TILLBOX_NO_APT=1          never touch the system's packages
set -euo pipefail
cd "$(dirname "$0")/.."
exec 1>&2                        # a script's reader of `make demo ARGS=--json` sees JSON and nothing else

PACKAGES=(
    python3 python3-venv python3-dev gcc libc6-dev linux-libc-dev   # evdev is built against the kernel's headers
    git make ca-certificates
    mosquitto                                                       # started by the program itself, on a free port
    postgresql softhsm2                                             # the collector's store at scale; a chip for the record key, in software
    fonts-wqy-microhei                                              # Chinese on display and paper
    chromium chromium-driver                                        # the test that drives the counter page
    openssh-client                                                  # certificates for the technician's console
    systemd                                                         # systemd-analyze, for the unit's gate
)

say() { printf 'setup: %s\n' "$*"; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null; then sudo "$@"
    else say "neither root nor sudo: cannot run: $*"; return 1
    fi
}

packages_missing() {
    local name
    for name in "${PACKAGES[@]}"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null || true)" = installed ] || echo "$name"
    done
}

# Debian starts a service as soon as it is installed.  The program starts its own Mosquitto and the tests their own PostgreSQL;
# a second one, listening for the whole machine, is nothing a person asked for here.
POLICY=/usr/sbin/policy-rc.d
policy_is_ours=
# shellcheck disable=SC2016
policy_set() {
    [ -e "$POLICY" ] && return 0
    printf '#!/bin/sh\ncase "$1" in mosquitto*|postgresql*) exit 101 ;; esac\nexit 0\n' | as_root tee "$POLICY" >/dev/null
    as_root chmod 0755 "$POLICY"
    policy_is_ours=1
}
policy_unset() { [ -z "$policy_is_ours" ] || as_root rm -f "$POLICY"; policy_is_ours=; }

system_ready() {
    [ "${TILLBOX_NO_APT:-}" = 1 ] && return 0
    if ! command -v dpkg-query >/dev/null; then
        say "not a Debian system; have at hand yourself: ${PACKAGES[*]}"
        return 0
    fi
    local missing
    mapfile -t missing < <(packages_missing)
    [ "${#missing[@]}" = 0 ] && return 0
    say "installing from Debian: ${missing[*]}"
    trap policy_unset EXIT
    if policy_set \
        && as_root apt-get -q update \
        && as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "${missing[@]}"; then
        local name
        for name in mosquitto postgresql; do
            case " ${missing[*]} " in
                *" $name "*) [ ! -d /run/systemd/system ] || as_root systemctl --quiet disable "$name.service" || true ;;
            esac
        done
    else
        mapfile -t missing < <(packages_missing)
        say "apt could not install: ${missing[*]}"
        say "is the package mirror reachable?  Going on with what is here; a part that needs these will say so."
    fi
    policy_unset
    trap - EXIT
}

# Debian's own interpreter first: it is the one the box runs.
python_found() {
    local name
    for name in ${PYTHON:+"$PYTHON"} /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do
        if "$name" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return 0
        fi
    done
    say "no Python 3.11 or newer that can make a virtual environment; on Debian: apt-get install python3 python3-venv"
    return 1
}

venv_ready() {
    local stamp python
    # The folder's own path is in the stamp: a moved or copied .venv/ points at the old place.
    stamp="$( { pwd -P; cat setup/debian.sh requirements.lock pyproject.toml; } | sha256sum | cut -d' ' -f1)"
    [ "$(cat .venv/stamp 2>/dev/null || true)" = "$stamp" ] && .venv/bin/python -c '' 2>/dev/null && return 0
    if ! .venv/bin/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python="$(python_found)"
        say "making .venv/ with $python"
        rm -rf .venv
        "$python" -m venv .venv
    fi
    rm -f .venv/stamp
    say "installing the locked packages into .venv/"
    export PIP_DISABLE_PIP_VERSION_CHECK=1
    .venv/bin/python -m pip install -q --require-hashes -r requirements.lock
    # A plain path file: the default for several packages is an import hook that costs 13 ms of every start.
    .venv/bin/python -m pip install -qq --no-deps --no-build-isolation --config-settings editable_mode=compat -e .
    echo "$stamp" >.venv/stamp
    say "ready"
}

system_ready
venv_ready
