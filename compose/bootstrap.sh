#!/bin/sh
# Sets up this checkout on a fresh Debian or Ubuntu:  sh compose/bootstrap.sh [--dev] [rabbitmq] [postgres] [grid]
#
# Makes .venv with the locked dependencies (checked against their hashes), installs the checkout into it, and the named
# servers where they are missing (see compose/servers.sh). Safe to run again at any time: what is done stays done, and a
# run that finds everything in place takes a fraction of a second. PYTHON names another interpreter.
set -eu

ROOT=$(cd "$(dirname "$0")/.." && pwd -P)
VENV=$ROOT/.venv

say() { printf 'pilotage: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

kind=runtime lock=requirements.lock
if [ "${1:-}" = --dev ]; then
    kind=dev lock=requirements-dev.lock
    shift
fi

good_python() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python3.14; do
        if good_python "$candidate"; then command -v "$candidate"; return; fi
    done
    die "Python 3.11 or newer is needed and was not found. Install it (Debian 12, Ubuntu 24.04 or newer: apt-get install python3),
pilotage: or name it: make setup PYTHON=/path/to/python3.12"
}

# A Debian Python without python3-venv has no pip to put into an environment: take it from Debian's package of wheels.
make_venv() {
    python=$(find_python)
    say "making the virtual environment .venv with $("$python" --version 2>&1) ..."
    rm -rf "$VENV"
    if "$python" -c 'import ensurepip; ensurepip.version()' >/dev/null 2>&1; then
        "$python" -m venv "$VENV" || die "the virtual environment could not be made; see the message above"
        return
    fi
    "$python" -c 'import venv' 2>/dev/null || die "this Python has no venv module: please install python3-venv"
    "$python" -m venv --without-pip "$VENV"
    sh "$ROOT/compose/servers.sh" pip
    servers=${PILOTAGE_SERVERS:-${XDG_DATA_HOME:-$HOME/.local/share}/pilotage/servers}
    for wheel in /usr/share/python-wheels/pip-*.whl "$servers"/pip/usr/share/python-wheels/pip-*.whl; do
        if [ -e "$wheel" ]; then
            "$VENV/bin/python" "$wheel/pip" install -q --no-index --no-deps "$wheel" || break
            return
        fi
    done
    die "pip could not be put into the environment: please install python3-venv"
}

install_locked() {
    say "installing the locked $kind dependencies ..."
    for pause in 3 10 0; do
        if "$VENV/bin/python" -m pip install -qq --disable-pip-version-check --no-input --retries 8 --no-deps \
            --require-hashes -r "$ROOT/$lock"; then
            return
        fi
        [ "$pause" = 0 ] || { say "the package index did not answer as it should; trying again in $pause s ..."; sleep "$pause"; }
    done
    die "the dependencies could not be installed: check the network (or PIP_INDEX_URL), then run this again"
}

main() {
    [ $# = 0 ] || sh "$ROOT/compose/servers.sh" "$@"
    wanted=$( { echo "$ROOT"; cat "$ROOT/$lock" "$ROOT/pyproject.toml" "$ROOT/compose/checkout.py"; } | sha256sum)
    stamp=$VENV/.setup-$kind
    if [ -x "$VENV/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && good_python "$VENV/bin/python"; then
        return
    fi
    if ! { good_python "$VENV/bin/python" && "$VENV/bin/python" -m pip --version >/dev/null 2>&1; }; then make_venv; fi
    install_locked
    "$VENV/bin/python" "$ROOT/compose/checkout.py"
    echo "$wanted" >"$stamp"
}

main "$@"
