#!/bin/sh
# Installs the servers that Pilotage runs privately, where they are missing: sh compose/servers.sh rabbitmq [postgres]
#
# As root: apt-get, with a guard that keeps the packages from starting (or later enabling) a system service.
# As anybody else: the same Debian packages, downloaded and unpacked into
# ${PILOTAGE_SERVERS:-${XDG_DATA_HOME:-~/.local/share}/pilotage/servers}/<name>; nothing outside that folder is touched.
set -eu

SERVERS=${PILOTAGE_SERVERS:-${XDG_DATA_HOME:-${HOME:-/nonexistent}/.local/share}/pilotage/servers}
GUARD=/usr/sbin/policy-rc.d
SAVED=$GUARD.saved-by-pilotage
MARK='# temporary guard of the Pilotage set-up: no package may start a service meanwhile'
CLUSTER_CONF=/etc/postgresql-common/createcluster.d/pilotage-setup.conf
LOG=

say() { printf 'pilotage: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# The first line of output is the folder in which the server's programs lie; empty when there is none.
find_server() {
    case $1 in
        rabbitmq) set -- "$1" /usr/lib/rabbitmq/bin "$SERVERS/rabbitmq/usr/lib/rabbitmq/bin" rabbitmq-server ;;
        postgres) set -- "$1" '/usr/lib/postgresql/*/bin' "$SERVERS/postgres/usr/lib/postgresql/*/bin" initdb ;;
        *) die "unknown server '$1': say rabbitmq or postgres" ;;
    esac
    # Folders are globbed on purpose: the version is part of PostgreSQL's path.
    # shellcheck disable=SC2086
    for folder in $2 "$3"; do
        for candidate in $folder; do
            if [ -x "$candidate/$4" ]; then echo "$candidate"; return; fi
        done
    done
    # "$3" was taken literally above when it holds a star; look again, still safe for folders with spaces.
    if [ "$1" = postgres ]; then
        for candidate in "$SERVERS"/postgres/usr/lib/postgresql/*/bin; do
            if [ -x "$candidate/$4" ]; then echo "$candidate"; return; fi
        done
    fi
}

package_of() { case $1 in rabbitmq) echo rabbitmq-server ;; postgres) echo postgresql ;; esac; }

# Runs a command quietly; on failure shows the end of what it said. Three tries: mirrors have bad moments.
attempt() {
    for pause in 2 5 0; do
        if "$@" >"$LOG" 2>&1; then return 0; fi
        [ "$pause" = 0 ] || sleep "$pause"
    done
    tail -n 15 "$LOG" >&2
    return 1
}

guard_up() {
    guard_down # what an earlier, killed run may have left
    if [ -e "$GUARD" ]; then mv "$GUARD" "$SAVED"; fi
    printf '#!/bin/sh\n%s\nexit 101\n' "$MARK" >"$GUARD"
    chmod 755 "$GUARD"
    made_conf_dir=
    if [ ! -d /etc/postgresql-common/createcluster.d ]; then made_conf_dir=yes; fi
    mkdir -p /etc/postgresql-common/createcluster.d
    echo 'create_main_cluster = false' >"$CLUSTER_CONF"
}

guard_down() {
    if [ -e "$GUARD" ] && grep -qF "$MARK" "$GUARD"; then rm -f "$GUARD"; fi
    if [ -e "$SAVED" ]; then mv "$SAVED" "$GUARD"; fi
    rm -f "$CLUSTER_CONF"
    if [ "${made_conf_dir:-}" ]; then
        rmdir --ignore-fail-on-non-empty -p /etc/postgresql-common/createcluster.d 2>/dev/null || true
    fi
}

install_as_root() {
    say "installing $* from this system's packages (no system service is started) ..."
    export DEBIAN_FRONTEND=noninteractive
    quiet='-y -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3'
    guard_up
    # shellcheck disable=SC2086
    if ! apt-get $quiet --no-install-recommends install "$@" >"$LOG" 2>&1; then
        attempt apt-get $quiet update || die "apt-get update failed: check this machine's network and apt sources"
        attempt apt-get $quiet --no-install-recommends install "$@" ||
            die "apt-get could not install $*: install it yourself, then run this again"
    fi
    # The packages enable their units for the next boot; nobody asked for that.
    if command -v systemctl >/dev/null 2>&1; then
        for package in "$@"; do
            if [ "$package" = rabbitmq-server ]; then
                systemctl disable --quiet rabbitmq-server.service epmd.service epmd.socket >/dev/null 2>&1 || true
            fi
        done
    fi
    guard_down
}

# $1 server, $2 package
unpack_for_user() {
    command -v apt-get >/dev/null 2>&1 && command -v dpkg-deb >/dev/null 2>&1 ||
        die "$2 is missing, and without apt-get and dpkg-deb I cannot fetch it: please install $2"
    say "unpacking $2 into $SERVERS/$1 ..."
    mkdir -p "$SERVERS"
    work=$(mktemp -d "$SERVERS/.$1.XXXXXX")
    apt_options="-o APT::Sandbox::User= -o Acquire::Retries=3"
    if ! apt-cache show "$2" >/dev/null 2>&1; then
        # No package lists on this machine (a fresh image), and only root may fetch them: fetch our own.
        mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
        case $work in *[[:space:]]*) die "the folder $SERVERS must not have blanks in its name" ;; esac
        apt_options="$apt_options -o Dir::State::lists=$work/lists -o Dir::Cache=$work/cache -o Debug::NoLocking=1"
        # shellcheck disable=SC2086
        attempt apt-get $apt_options update || die "apt-get update failed: check the network and the apt sources"
    fi
    # shellcheck disable=SC2086
    packages=$(apt-get $apt_options -s --no-install-recommends install "$2" | sed -n 's/^Inst \([^ ]*\).*/\1/p')
    mkdir "$work/debs" "$work/root"
    # shellcheck disable=SC2086
    (cd "$work/debs" && attempt apt-get $apt_options download $packages) || die "the packages of $2 could not be fetched"
    for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$work/root"; done
    if [ "$1" = rabbitmq ]; then
        sed -i "s|^ROOTDIR=.*|ROOTDIR=\"$SERVERS/rabbitmq/usr/lib/erlang\"|" "$work/root/usr/lib/erlang/bin/erl"
    fi
    rm -rf "${SERVERS:?}/$1"
    mv "$work/root" "$SERVERS/$1"
    rm -rf "$work"
}

clean_up() {
    status=$?
    trap - EXIT
    [ "$(id -u)" != 0 ] || guard_down
    rm -f "$LOG"
    if [ "${work:-}" ]; then rm -rf "$work"; fi
    exit "$status"
}

[ $# -gt 0 ] || die "usage: sh compose/servers.sh rabbitmq [postgres]"
missing=
for server in "$@"; do
    if [ -z "$(find_server "$server")" ]; then missing="$missing $server"; fi
done
[ "$missing" ] || exit 0
umask 022
LOG=$(mktemp)
trap clean_up EXIT
trap 'exit 130' INT TERM HUP
if [ "$(id -u)" = 0 ]; then
    packages=
    for server in $missing; do packages="$packages $(package_of "$server")"; done
    # shellcheck disable=SC2086
    install_as_root $packages
else
    for server in $missing; do unpack_for_user "$server" "$(package_of "$server")"; done
fi
for server in $missing; do
    [ "$(find_server "$server")" ] || die "$server is still not to be found after its installation; see the messages above"
done
