#!/usr/bin/env bash
# Tests all of the packaging that needs no release build: its files, packages of the programs that are built (for PyPI and npm too), the launch
# examples, and the packages on a booted systemd.
#
#     packaging/test/run.sh [DIRECTORY-OF-THE-PROGRAMS]      [default: target/debug]
#     packaging/test/run.sh --install                        only installs the tools that the tests need
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=${1:-target/debug}

if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    needed=()
    need() { command -v "$1" > /dev/null || needed+=("$2"); }
    need systemd-analyze systemd
    need systemd-nspawn systemd-container
    need debootstrap debootstrap
    need lintian lintian
    need mandoc mandoc
    need shellcheck shellcheck
    need zsh zsh
    need fish fish
    need supervisord supervisor
    need objdump binutils
    if [ ${#needed[@]} -gt 0 ]; then
        apt-get update -qq
        # Services of the installed packages must not start here.
        DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${needed[@]}" > /dev/null
    fi
fi
[ "$bin" != --install ] || exit 0

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
packaging/test/files.sh
packaging/test/helm.sh
python3 packaging/licenses.py
packaging/deb/build.sh --bin "$bin" --out "$out" --fast
if command -v lintian > /dev/null; then
    lintian --allow-root --fail-on error "$out"/*.deb
else
    echo 'SKIPPED - packages: there is no lintian'
fi
packaging/tarball.sh --bin "$bin" --out "$out"
mkdir "$out/unpacked"
tar -xzf "$out"/*.tar.gz -C "$out/unpacked" --strip-components=1
"$out/unpacked/install.sh" --destdir "$out/root" --prefix /usr/local
"$out/root/usr/local/bin/machineid-sidecar" --version
"$out/unpacked/install.sh" --destdir "$out/root" --prefix /usr/local --uninstall
left=$(find "$out/root" -type f ! -path '*/etc/*')
[ -z "$left" ] || { echo "install.sh --uninstall leaves $left"; exit 1; }
packaging/test/signed.sh "$out"/*.tar.gz
packaging/test/wheels.sh "$bin"
packaging/test/npm.sh "$bin"
packaging/test/launch.sh "$bin"
packaging/test/booted.sh "$out"
