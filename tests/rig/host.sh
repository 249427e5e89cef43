#!/bin/bash
# Prepares this host for a make target: Debian packages, then the virtual environment.
# Usage: tests/rig/host.sh venv|rig|test. Exit code 2 when something is missing that it may not install.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."

install_missing() {
    [ $# -gt 0 ] || return 0
    local -a sudo=()
    if [ "$(id -u)" != 0 ]; then
        if ! sudo -n true 2>/dev/null; then
            echo "make: Debian packages are missing; apt-get install $*" >&2
            exit 2
        fi
        sudo=(sudo -n)
    fi
    if ! command -v apt-get >/dev/null; then
        echo "make: programs are missing and this host has no apt-get; install what Debian calls: $*" >&2
        exit 2
    fi
    echo "make: installing $*" >&2
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq update
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends "$@" >/dev/null
}

# Programs below sbin count: mke2fs is there, and not every user has it on the path.
has() { PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null; }

venv() {
    local -a missing=()
    has python3 || missing+=(python3)
    has git || missing+=(git)
    if ! has python3 || ! python3 -c 'import ensurepip, venv' 2>/dev/null; then missing+=(python3-venv); fi
    install_missing "${missing[@]}"
    if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "make: $(python3 --version) is too old; put a python3 of 3.11 or later first on PATH" >&2
        exit 2
    fi
    local stamp=.venv/.cedarbox-installed wanted
    wanted=$(sha256sum pyproject.toml)
    if [ ! -x .venv/bin/python ] || [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        echo "make: installing the Python packages into .venv" >&2
        [ -x .venv/bin/python ] || python3 -m venv .venv
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
        printf '%s\n' "$wanted" >"$stamp"
    fi
}

rig() {
    local -a missing=()
    has mmdebstrap || missing+=(mmdebstrap)
    has qemu-system-x86_64 || missing+=(qemu-system-x86)
    has mke2fs || missing+=(e2fsprogs)
    has unshare || missing+=(util-linux)
    install_missing "${missing[@]}"
}

# What tests of the viewer's page need; without it they are skipped.
browser() {
    has chromium && return
    if [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null || ! command -v apt-get >/dev/null; then
        echo "make: no chromium, and none may be installed here: the tests of the viewer's page are skipped" >&2
        return
    fi
    install_missing chromium
}

case ${1:-} in
    venv) venv ;;
    rig) venv && rig ;;
    test) venv && rig && browser ;;
    *)
        echo "usage: tests/rig/host.sh venv|rig|test" >&2
        exit 2
        ;;
esac
