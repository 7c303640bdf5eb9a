#!/usr/bin/env bash
# Makes the Debian packages machineid-sidecar and machineid-authority from built programs.
#
#     packaging/deb/build.sh [--bin DIR] [--out DIR] [--fast]       [default: target/dist/bin, target/dist]
#
# It uses dpkg-deb without a source package: cargo builds the programs, so debhelper would only copy files.
set -euo pipefail
cd "$(dirname "$0")/../.."

bin=target/dist/bin out=target/dist compression=xz
while [ $# -gt 0 ]; do
    case $1 in
        --bin) bin=$2; shift 2 ;;
        --out) out=$2; shift 2 ;;
        --fast) compression=gzip; shift ;;
        *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)-1
arch=$(dpkg --print-architecture)
maintainer=${DEBFULLNAME:-machineid-sidecar authors} maintainer="$maintainer <${DEBEMAIL:-packages@machineid.io}>"
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}
date=$(date -u -R -d "@$SOURCE_DATE_EPOCH")

# The newest libc version that a symbol of the programs needs.
libc() {
    local newest
    newest=$(objdump -T "$@" | sed -n 's/.*GLIBC_\([0-9][0-9.]*\).*/\1/p' | sort -V | tail -1)
    echo "libc6 (>= $newest), libgcc-s1 (>= 4.2)"
}

package() { # NAME PART PROGRAMS...
    local name=$1 part=$2 stage="$out/stage/$1"
    shift 2
    rm -rf "$stage"
    mkdir -p "$stage/DEBIAN"
    packaging/install.sh --bin "$bin" --destdir "$stage" --prefix /usr --part "$part"
    local doc="$stage/usr/share/doc/$name"
    mkdir -p "$doc"
    install -m 644 packaging/deb/copyright "$doc/copyright"
    [ ! -e target/dist/THIRD-PARTY-LICENSES ] || install -m 644 target/dist/THIRD-PARTY-LICENSES "$doc/"
    gzip -9nc CHANGELOG.md > "$doc/changelog.gz"
    printf '%s (%s) unstable; urgency=medium\n\n  * See changelog.gz.\n\n -- %s  %s\n' \
        "$name" "$version" "$maintainer" "$date" | gzip -9nc > "$doc/changelog.Debian.gz"
    if [ "$part" = sidecar ]; then
        cp -r docs "$doc/docs"
        # They are made, and the pages show their pictures.
        rm -f "$doc"/docs/pictures/*.py "$doc"/docs/pictures/*.mjs
        cp -r examples/gateways examples/clients "$stage/usr/share/doc/$name/"
        mkdir -p "$doc/examples/systemd"
        mv "$doc/gateways" "$doc/clients" "$doc/examples/"
        cp packaging/systemd/drop-ins/*.conf "$doc/examples/systemd/"
        [ ! -d packaging/launch ] || cp -r packaging/launch "$doc/examples/launch"
        [ ! -d packaging/kubernetes ] || cp -r packaging/kubernetes "$doc/examples/kubernetes"
        # machineid-run is static so that it can be copied into any container and start agents there; machineid-leaf, so that
        # root runs no library in it.
        mkdir -p "$stage/usr/share/lintian/overrides"
        for static in usr/bin/machineid-run usr/libexec/machineid-leaf; do
            echo "$name: statically-linked-binary [$static]" >> "$stage/usr/share/lintian/overrides/$name"
        done
    fi
    # The package is not uploaded to Debian, so there is no bug to close.
    mkdir -p "$stage/usr/share/lintian/overrides"
    echo "$name: initial-upload-closes-no-bugs" >> "$stage/usr/share/lintian/overrides/$name"
    gzip -9n "$stage"/usr/share/man/man1/*.1
    find "$stage/usr" -type f \( -path '*/bin/*' -o -path '*/libexec/*' \) -exec strip --strip-unneeded {} +
    find "$stage" -type d -exec chmod 755 {} +
    find "$stage" -type f ! -path '*/bin/*' ! -path '*/libexec/*' -exec chmod 644 {} +

    local size
    size=$(find "$stage" -type f -printf '%s\n' | awk '{ kib += int(($1 + 1023) / 1024) } END { print kib }')
    sed -e "s/@VERSION@/$version/; s/@ARCH@/$arch/; s/@MAINTAINER@/$maintainer/; s/@SIZE@/$size/" \
        -e "s/@LIBC@/$(libc "${@/#/$stage/usr/bin/}")/" "packaging/deb/$name/control" > "$stage/DEBIAN/control"
    install -m 644 "packaging/deb/$name/conffiles" "$stage/DEBIAN/"
    install -m 755 packaging/deb/"$name"/{postinst,prerm,postrm} "$stage/DEBIAN/"
    (cd "$stage" && find usr -type f | LC_ALL=C sort | xargs md5sum) > "$stage/DEBIAN/md5sums"
    find "$stage" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    dpkg-deb --root-owner-group "-Z$compression" --build "$stage" "$out/${name}_${version}_$arch.deb"
}

package machineid-sidecar sidecar machineid-sidecar machineid
package machineid-authority authority machineid-authority
rm -rf "$out/stage"
