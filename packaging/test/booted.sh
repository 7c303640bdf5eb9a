#!/usr/bin/env bash
# Tests the packages on a booted systemd: a Debian root made by debootstrap, started by systemd-nspawn with a network and a file
# system of its own, and deleted at the end.
#
#     packaging/test/booted.sh DEBS-DIRECTORY [SUITE]       [default: this system's, as bookworm]
#
# Needs root, debootstrap and systemd-nspawn; says SKIPPED without them. The base root is kept in target/booted (or
# $BOOTED_BASE) for the next time. $BOOTED_MIRROR names the mirror of a suite that this system's own does not have, as Ubuntu's.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit
debs=$(realpath -- "${1:?the directory of the packages}")
ls "$debs"/machineid-*.deb > /dev/null || exit 2
here=$PWD/packaging/test

skip() { echo "SKIPPED: packaging/test/booted.sh: $*"; exit 0; }
[ "$(id -u)" = 0 ] || skip "must be root to boot a container"
for tool in debootstrap systemd-nspawn nsenter; do command -v $tool >/dev/null || skip "there is no $tool"; done

work=$(mktemp -d /var/tmp/machineid-booted.XXXXXX)
nspawn='' leader=''
finish() {
    if [ -n "$leader" ] && [ -d "/proc/$leader" ]; then
        inside systemctl poweroff --no-wall >/dev/null 2>&1
        for _ in $(seq 100); do [ -d "/proc/$nspawn" ] || break; sleep 0.2; done
    fi
    if [ -n "$nspawn" ] && [ -d "/proc/$nspawn" ]; then kill -KILL "$nspawn"; fi
    wait 2>/dev/null
    umount "$work/root" 2>/dev/null
    umount "$work" 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

# --- the base ------------------------------------------------------------------------------------------------------
own=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
suite=${2:-$own}
if [ "$suite" = "$own" ]; then base=target/booted/base; else base=target/booted/$suite; fi
base=$(realpath -m "${BOOTED_BASE:-$base}")
if [ ! -e "$base.ready" ]; then
    echo "making a root of $suite in $base"
    rm -rf "$base"
    mkdir -p "$base"
    mirror=${BOOTED_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | head -1)}
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,procps,curl,python3-minimal "$suite" "$base" \
        ${mirror:+"$mirror"} > "$base.log" 2>&1 || { tail -5 "$base.log"; skip "debootstrap failed"; }
    rm -rf "$base"/var/cache/apt/archives/*.deb "$base"/var/lib/apt/lists/*
    touch "$base.ready"
fi

# --- boot ----------------------------------------------------------------------------------------------------------
mount -t tmpfs tmpfs "$work" || skip "cannot mount"
mkdir "$work"/{upper,work,root}
mount -t overlay overlay -o "lowerdir=$base,upperdir=$work/upper,workdir=$work/work" "$work/root" || skip "no overlay file system"
mkdir "$work/root/debs"
cp "$debs"/machineid-*.deb "$work/root/debs/"
cp "$here/inside.sh" "$work/root/debs/"

systemd-nspawn --quiet --directory="$work/root" --boot --register=no --keep-unit --private-network --console=pipe \
    --machine="machineid-$$" > "$work/console" 2>&1 < /dev/null &
nspawn=$!
inside() { nsenter --target "$leader" --all env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 "$@"; }
for _ in $(seq 300); do
    leader=$(pgrep -P "$nspawn" | head -1)
    case "$([ -n "$leader" ] && inside systemctl is-system-running 2>/dev/null)" in running | degraded) break ;; esac
    [ -d "/proc/$nspawn" ] || break
    sleep 0.2
done
inside systemctl is-system-running >/dev/null 2>&1 || { cat "$work/console"; skip "systemd does not boot here"; }
inside systemctl --version | head -1

# --- the tests, as a service of the booted system: in its control groups, without a terminal -------------------------
inside systemd-run --quiet --pipe --wait --collect --unit=machineid-test --property=RuntimeMaxSec=600 --setenv=HOME=/root \
    bash /debs/inside.sh < /dev/null
exit $?
