#!/usr/bin/env bash
# Makes the portable archive from built programs: target/dist/machineid-sidecar-VERSION-TARGET.tar.gz
#
#     packaging/tarball.sh [--bin DIR] [--out DIR]
set -euo pipefail
cd "$(dirname "$0")/.."

bin=target/dist/bin out=target/dist
while [ $# -gt 0 ]; do
    case $1 in
        --bin) bin=$2; shift 2 ;;
        --out) out=$2; shift 2 ;;
        *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
name=machineid-sidecar-$version-$(uname -m)-linux-gnu
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}
stage=$out/stage-tar/$name
rm -rf "$out/stage-tar"
mkdir -p "$stage/bin" "$stage/packaging"
install -m 755 -t "$stage/bin" "$bin"/machineid{,-run,-leaf,-sidecar,-authority}
strip --strip-unneeded "$stage"/bin/*
install -m 755 packaging/install.sh "$stage/install.sh"
cp -r packaging/{systemd,man,completions,launch,kubernetes,needrestart,apparmor} "$stage/packaging/"
install -m 644 -t "$stage" machineid-sidecar.toml README.md CHANGELOG.md SECURITY.md LICENSE
[ ! -e target/dist/THIRD-PARTY-LICENSES ] || install -m 644 target/dist/THIRD-PARTY-LICENSES "$stage/"
find "$stage" -type d -exec chmod 755 {} +
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$epoch" --format=gnu -C "$out/stage-tar" -cf - "$name" |
    gzip -9n > "$out/$name.tar.gz"
rm -rf "$out/stage-tar"
echo "$out/$name.tar.gz"
