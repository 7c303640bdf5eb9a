#!/usr/bin/env bash
# Makes the RPM packages machineid-sidecar and machineid-authority from built programs.
#
#     packaging/rpm/build.sh [--bin DIR] [--out DIR] [--fast]       [default: target/dist/bin, target/dist]
set -euo pipefail
cd "$(dirname "$0")/../.."

bin=target/dist/bin out=target/dist payload=w19.zstdio
while [ $# -gt 0 ]; do
    case $1 in
        --bin) bin=$2; shift 2 ;;
        --out) out=$2; shift 2 ;;
        --fast) payload=w1.gzdio; shift ;;
        *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir "$stage/bin"
install -m 755 -t "$stage/bin" "$bin"/machineid{,-run,-leaf,-sidecar,-authority}
strip --strip-unneeded "$stage"/bin/*
rpmbuild --quiet -bb --define "_topdir $stage/rpm" --define "_rpmdir $stage/made" --define "version $version" --define "top $PWD" \
    --define "bin $stage/bin" --define "_buildhost reproducible" --define "use_source_date_epoch_as_buildtime 1" \
    --define "clamp_mtime_to_source_date_epoch 1" --define "debug_package %{nil}" --define "__os_install_post %{nil}" \
    --define "_binary_payload $payload" --define "_build_id_links none" --define "__brp_mangle_shebangs %{nil}" packaging/rpm/machineid-sidecar.spec
mkdir -p "$out"
find "$stage/made" -name '*.rpm' -exec cp -t "$out" {} +
ls "$out"/*.rpm
