#!/usr/bin/env bash
# Builds the RPM packages and installs them in a chroot: Debian's root of booted.sh, with a database of packages of its own.
#
#     packaging/test/rpm.sh [DIRECTORY-OF-THE-PROGRAMS]      [default: target/debug]
#
# Needs root, rpmbuild and the root in target/booted (or $BOOTED_BASE); says SKIPPED without them.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit
bin=$(realpath -- "${1:-target/debug}")

. packaging/test/outcome.sh
impossible() { echo "SKIPPED: packaging/test/rpm.sh: $*"; exit 0; }
[ "$(id -u)" = 0 ] || impossible "must be root to enter a chroot"
for tool in rpmbuild rpm chroot; do command -v $tool > /dev/null || impossible "there is no $tool"; done
base=$(realpath -m "${BOOTED_BASE:-target/booted/base}")
[ -e "$base.ready" ] || impossible "there is no root in $base; packaging/test/booted.sh makes it"

work=$(mktemp -d /var/tmp/machineid-rpm.XXXXXX)
finish() {
    umount "$work/root" 2> /dev/null
    umount "$work" 2> /dev/null
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM
mount -t tmpfs tmpfs "$work" || impossible "cannot mount"
mkdir "$work"/{upper,work,root,rpms}
mount -t overlay overlay -o "lowerdir=$base,upperdir=$work/upper,workdir=$work/work" "$work/root" || impossible "no overlay file system"

ok 'rpmbuild makes the packages' packaging/rpm/build.sh --bin "$bin" --out "$work/rpms" --fast
# The chroot's own packages are Debian's: rpm knows none of them. Debian's rpm wants to be asked twice.
force=()
[ ! -e /etc/debian_version ] || force=(--force-debian)
in_root() { rpm "${force[@]}" --root "$work/root" --dbpath /var/lib/rpm --nodeps "$@"; }
ok 'they are installed in a chroot' in_root -i "$work"/rpms/*.rpm
inside() { chroot "$work/root" env -i PATH=/usr/bin:/bin HOME=/root "$@"; }
ok 'the programs run there' inside sh -c 'machineid-sidecar --version && machineid-run --version && machineid --version && machineid-authority --version'
ok 'the users and groups exist' inside sh -c 'getent passwd machineid-sidecar && getent passwd machineid-authority && getent group machineid'
ok 'the unit names a program that is there' inside sh -c 'test -x "$(sed -n "s/^ExecStart=//p" /usr/lib/systemd/system/machineid-sidecar.service)"'
ok 'the pages come with it' inside test -s /usr/share/doc/machineid-sidecar/docs/operations.md
ok 'nothing that was installed is changed' in_root -V machineid-sidecar machineid-authority
echo '# an administrator was here' >> "$work/root/etc/machineid/machineid-sidecar.toml"
ok 'installed again, an edited configuration stays' in_root -U --force "$work"/rpms/*.rpm
ok 'as it was' grep -q 'an administrator was here' "$work/root/etc/machineid/machineid-sidecar.toml"
ok 'they are removed' in_root -e machineid-sidecar machineid-authority
left() { find "$work/root/usr" -name '*machineid*' ! -name '*.rpmsave' | grep . && return 1; return 0; }
ok 'and leave nothing below /usr' left

outcome
