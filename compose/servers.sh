#!/bin/sh
# Installs what Pilotage runs privately, where it is missing:  sh compose/servers.sh rabbitmq [postgres] [grid] [pip]
#
# `grid` is for the tests only: the clients and servers of VOMS, MyProxy and Globus that people on the grid use.
# As root: rabbitmq, postgres and grid by apt-get, with a guard that keeps the packages from starting a system service, now or
# at the next boot. As anybody else, and pip always: the same Debian packages, downloaded and unpacked into
# ${PILOTAGE_SERVERS:-${XDG_DATA_HOME:-~/.local/share}/pilotage/servers}/<name>; nothing outside that folder is touched.
# Prints nothing and takes no time when everything is there.
set -eu

SERVERS=${PILOTAGE_SERVERS:-${XDG_DATA_HOME:-${HOME:?HOME is not set}/.local/share}/pilotage/servers}
GUARD=/usr/sbin/policy-rc.d
SAVED=$GUARD.saved-by-pilotage
MARK='# temporary guard of the Pilotage set-up: no package may start a service meanwhile'
CLUSTER_CONF_DIR=/etc/postgresql-common/createcluster.d
LOG= work= made_conf_dir= unguarded=yes

say() { printf 'pilotage: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

package_of() {
    case $1 in
        rabbitmq) echo rabbitmq-server ;;
        postgres) echo postgresql ;;
        # Of MariaDB only the daemon, for voms-server: a tenth of the whole, and it has no system service.
        grid)
            echo voms-clients voms-server voms-mysql-plugin mariadb-server-core \
                globus-proxy-utils myproxy myproxy-server
            ;;
        pip) echo python3-pip-whl ;;
        *) die "unknown server '$1': say rabbitmq, postgres or grid" ;;
    esac
}

all_exist() { # $1 name, then files
    shift
    for file in "$@"; do [ -e "$file" ] || return 1; done
}

# Whether the server of this name can be run from this machine's own packages or from our folder.
have() {
    for prefix in "" "$SERVERS/$1"; do
        case $1 in
            rabbitmq) set -- "$1" "$prefix/usr/lib/rabbitmq/bin/rabbitmq-server" ;;
            postgres) set -- "$1" "$prefix"/usr/lib/postgresql/*/bin/initdb ;;
            grid)
                set -- "$1" "$prefix/usr/bin/voms-proxy-init2" "$prefix/usr/sbin/voms" "$prefix/usr/sbin/mariadbd" \
                    "$prefix/usr/lib/voms/libvomsmysql.so" "$prefix/usr/bin/grid-proxy-init" \
                    "$prefix/usr/bin/myproxy-logon" "$prefix/usr/sbin/myproxy-server"
                ;;
            pip) set -- "$1" "$prefix"/usr/share/python-wheels/pip-*.whl ;;
        esac
        if all_exist "$@"; then return 0; fi
    done
    return 1
}

# Runs a command quietly, three times at most: package mirrors have bad moments. Shows the end of what it said if it fails.
attempt() {
    for pause in 2 5 0; do
        if "$@" >"$LOG" 2>&1; then return 0; fi
        [ "$pause" = 0 ] || sleep "$pause"
    done
    tail -n 15 "$LOG" >&2
    return 1
}

# ---- as root

guard_up() {
    guard_down # what an earlier, killed run may have left
    unguarded=
    if [ -e "$GUARD" ]; then mv "$GUARD" "$SAVED"; fi
    printf '#!/bin/sh\n%s\nexit 101\n' "$MARK" >"$GUARD"
    chmod 755 "$GUARD"
    [ -d "$CLUSTER_CONF_DIR" ] || made_conf_dir=yes
    mkdir -p "$CLUSTER_CONF_DIR" # PostgreSQL's package would make a cluster of its own, for the system
    echo 'create_main_cluster = false' >"$CLUSTER_CONF_DIR/pilotage-setup.conf"
}

guard_down() {
    if [ -e "$GUARD" ] && grep -qF "$MARK" "$GUARD"; then rm -f "$GUARD"; fi
    if [ -e "$SAVED" ]; then mv "$SAVED" "$GUARD"; fi
    rm -f "$CLUSTER_CONF_DIR/pilotage-setup.conf"
    if [ "$made_conf_dir" ]; then rmdir "$CLUSTER_CONF_DIR" "${CLUSTER_CONF_DIR%/*}" 2>/dev/null || true; fi
    unguarded=yes
}

disable() {
    if command -v systemctl >/dev/null 2>&1; then systemctl disable --quiet "$@" >/dev/null 2>&1 || true; fi
}

install_as_root() {
    say "installing $* from this system's packages (no system service is started) ..."
    command -v apt-get >/dev/null 2>&1 || die "this system has no apt-get: please install $* yourself, then try again"
    export DEBIAN_FRONTEND=noninteractive
    apt='apt-get -y -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3'
    guard_up
    # shellcheck disable=SC2086
    if ! $apt --no-install-recommends install "$@" >"$LOG" 2>&1; then # the package lists may be missing or old
        attempt $apt update || die "apt-get update failed: check this machine's network and its apt sources"
        attempt $apt --no-install-recommends install "$@" ||
            die "apt-get could not install $*: please install it yourself, then try again"
    fi
    # The packages enable their units for the next boot; nobody asked for that.
    case " $* " in
        *" rabbitmq-server "*) disable rabbitmq-server.service epmd.service epmd.socket ;;
    esac
    case " $* " in
        *" voms-server "*) disable voms.service myproxy-server.service ;;
    esac
    guard_down
}

# ---- as anybody

unpack() { # $1 name, $2 its packages
    command -v apt-get >/dev/null 2>&1 && command -v dpkg-deb >/dev/null 2>&1 ||
        die "$2 is missing, and without apt-get I cannot fetch it: please have $2 installed, then try again"
    case $SERVERS in *[[:space:]]*) die "the folder '$SERVERS' must not have blanks in its name: set PILOTAGE_SERVERS" ;; esac
    say "unpacking $2 into $SERVERS/$1 ..."
    mkdir -p "$SERVERS"
    work=$(mktemp -d "$SERVERS/.$1.XXXXXX")
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/debs" "$work/root"
    apt="apt-get -q -o APT::Sandbox::User= -o Acquire::Retries=3 -o Dir::Cache=$work/cache -o Debug::NoLocking=1"
    # shellcheck disable=SC2086
    if ! needed=$(closure "$2") || ! (cd "$work/debs" && $apt download $needed) >"$LOG" 2>&1; then
        # The system's package lists are missing or old, and only root may renew them: fetch lists of our own.
        apt="$apt -o Dir::State::lists=$work/lists"
        attempt $apt update || die "apt-get update failed: check this machine's network and its apt sources"
        if ! needed=$(closure "$2"); then
            tail -n 15 "$LOG" >&2
            die "apt cannot find out what $2 needs, see above; please have it installed, then try again"
        fi
        rm -f "$work"/debs/*
        (cd "$work/debs" && attempt $apt download $needed) || die "the packages of $2 could not be fetched; try again"
    fi
    for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$work/root" || die "$deb could not be unpacked"; done
    erl=$work/root/usr/lib/erlang/bin/erl
    if [ -e "$erl" ]; then sed -i "s|^ *ROOTDIR=.*|ROOTDIR=\"$SERVERS/$1/usr/lib/erlang\"|" "$erl"; fi
    rm -rf "${SERVERS:?}/$1"
    mv "$work/root" "$SERVERS/$1"
    rm -rf "$work"
    work=
}

closure() { # what apt would install for these packages here, themselves included, even when dpkg knows it already
    # shellcheck disable=SC2086
    listed=$($apt -s --reinstall --no-install-recommends install $1 2>"$LOG") || return 1
    printf '%s\n' "$listed" | sed -n 's/^Inst \([^ ]*\).*/\1/p' | grep . || return 1
}

clean_up() {
    status=$?
    trap - EXIT
    [ "$unguarded" ] || guard_down
    rm -f "$LOG"
    if [ "$work" ]; then rm -rf "$work"; fi
    exit "$status"
}

[ $# -gt 0 ] || die "usage: sh compose/servers.sh rabbitmq [postgres] [grid] [pip]"
missing=
for name in "$@"; do
    package_of "$name" >/dev/null
    if ! have "$name"; then missing="$missing $name"; fi
done
[ "$missing" ] || exit 0

umask 022
if [ "$(id -u)" = 0 ] && command -v flock >/dev/null 2>&1; then # two at once would take each other's guard away
    exec 9>/run/pilotage-setup.lock
    flock 9
fi
LOG=$(mktemp)
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
packages=
for name in $missing; do
    if [ "$(id -u)" = 0 ] && [ "$name" != pip ]; then
        packages="$packages $(package_of "$name")"
    else
        unpack "$name" "$(package_of "$name")"
    fi
done
# shellcheck disable=SC2086
[ -z "$packages" ] || install_as_root $packages
for name in $missing; do
    have "$name" || die "$name is not to be found even after its installation; see the messages above"
done
