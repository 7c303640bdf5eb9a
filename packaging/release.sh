#!/usr/bin/env bash
# Makes a release of the commit that is checked out, into target/release-VERSION, and proves that it is reproducible: it makes
# two builds in two directories and compares them byte for byte.
#
#     packaging/release.sh                 of a tag
#     packaging/release.sh --rehearse      the same of any commit, without the tag
#
# Each step of the checklist is carried out here; the steps that need a person are printed at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

rehearse=''
case ${1:-} in
    '') ;;
    --rehearse) rehearse=yes ;;
    *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac

step() { printf '\n[ ] %s\n' "$1"; }
stop() { printf '\nrelease.sh: %s\n' "$1" >&2; exit 1; }
unless_rehearsed() { [ -n "$rehearse" ] && echo "    (rehearsed: $1)" || stop "$1"; }

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
commit=$(git rev-parse HEAD)
out=$PWD/target/release-$version

step "nothing is uncommitted"
[ -z "$(git status --porcelain)" ] || stop 'commit or remove what git status shows'

step "HEAD is the tag v$version"
[ "$(git describe --tags --exact-match 2>/dev/null || true)" = "v$version" ] ||
    unless_rehearsed "HEAD is not tagged v$version (git tag -s v$version)"

step "CHANGELOG.md says what is new in $version"
grep -q "^## \[\?$version" CHANGELOG.md || unless_rehearsed "CHANGELOG.md has no section $version"

step 'licences'
mkdir -p target/dist
python3 packaging/licenses.py target/dist/THIRD-PARTY-LICENSES

step 'cargo deny: licences, bans, sources'
if command -v cargo-deny > /dev/null; then
    cargo deny --locked check licenses bans sources
    step 'cargo deny: known vulnerabilities (the RustSec database, from GitHub)'
    cargo deny --locked check advisories ||
        unless_rehearsed 'a dependency has a known vulnerability or was yanked, or the database cannot be fetched'
else
    unless_rehearsed 'cargo-deny is not installed (cargo install --locked cargo-deny)'
fi

step 'units, manual pages, manifests, scripts'
packaging/test/files.sh

step 'two builds of the commit, in two directories'
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Two names of different length: a path that got into a program would make the builds differ.
first=$work/a second=$work/another-place-to-build-in
for place in "$first" "$second"; do
    mkdir "$place"
    git archive "$commit" | tar -x -C "$place"
    mkdir -p "$place/target/dist"
    cp target/dist/THIRD-PARTY-LICENSES "$place/target/dist/"
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct "$commit")
    export SOURCE_DATE_EPOCH
    "$place/packaging/build.sh"
    "$place/packaging/deb/build.sh"
    "$place/packaging/tarball.sh"
    "$place/packaging/build.sh" --portable
    # hatchling, once for all.
    mkdir -p target/packaging-tools && ln -sfn "$PWD/target/packaging-tools" "$place/target/packaging-tools"
    "$place/packaging/wheel.sh"
    "$place/packaging/npm.sh"
done
for file in "$first"/target/dist/{bin,portable}/* "$first"/target/dist/*.{deb,tar.gz,whl} "$first"/target/dist/npm/*.tgz; do
    cmp "$file" "$second/${file#"$first/"}" || stop 'the two builds differ: this release could not be made again'
done
echo '    the same bytes'

step 'the packages'
rm -rf "$out"
mkdir -p "$out"
cp "$first"/target/dist/*.{deb,tar.gz,whl} "$first"/target/dist/npm/*.tgz "$out/"
if command -v lintian > /dev/null; then lintian --fail-on error "$out"/*.deb; else echo '    (no lintian here)'; fi
# Verifies the archive before it installs it, so it must be outside.
cp packaging/install.sh "$out/"
python3 packaging/sbom.py "$out/machineid-sidecar-$version.cdx.json"
"$first/target/dist/bin/machineid-sidecar" --version

step 'the wheel and the npm packages: installed and tried, and within their sizes'
WHEEL=$(echo "$out"/*.whl) packaging/test/wheels.sh "$first/target/dist/portable"
PACKAGES=$out packaging/test/npm.sh "$first/target/dist/portable"
most() { # MEBIBYTES FILE
    local size
    size=$(stat -c %s -- "$2")
    [ "$size" -le $(($1 * 1048576)) ] || stop "${2##*/} has $size bytes, more than $1 MiB"
}
most 25 "$out"/*.whl
most 12 "$out"/machineid-sidecar-linux-*.tgz

step 'the same for aarch64'
# Cross-compiled where the tools for it are; otherwise on a host of that processor, from this commit.
if "$first/packaging/build.sh" --portable --target aarch64-unknown-linux-gnu; then
    portable=$first/target/dist/portable-aarch64-unknown-linux-gnu
    "$first/packaging/wheel.sh" --bin "$portable" --out "$out"
    "$first/packaging/npm.sh" --bin "$portable" --out "$out"
else
    unless_rehearsed "no aarch64 here: on such a host run packaging/build.sh --portable, wheel.sh and npm.sh, and copy the results to $out"
fi

step 'what PyPI and npm would be sent'
packaging/publish.sh --dry-run "$out"

step 'checksums and their signature (RELEASE_SIGNING_KEY names the key)'
if [ -n "${RELEASE_SIGNING_KEY:-}" ]; then
    packaging/sign.sh "$out"
else
    unless_rehearsed 'RELEASE_SIGNING_KEY names no key to sign SHA256SUMS with'
    (cd "$out" && sha256sum -- *.deb *.tar.gz *.whl *.tgz *.json install.sh > SHA256SUMS)
fi
cat "$out/SHA256SUMS"

step 'on a booted systemd: install, run, revoke, upgrade, purge'
packaging/test/booted.sh "$out"

step 'images, compose and manifests under podman, as root and as an ordinary user'
packaging/test/podman.sh "$first/target/dist/bin"

cat <<END

Left to you:
  [ ] CI is green for $commit
  [ ] cargo bench -- memory: an idle daemon has 16 MiB or less resident and 4 MiB or less private
  [ ] read CHANGELOG.md once more as an operator who upgrades
  [ ] git push origin v$version, and upload what is in $out
  [ ] packaging/publish.sh $out                    PyPI and npm; both processors must be there
  [ ] docker build --build-arg MACHINEID_COMMIT="$(git log -1 --abbrev=12 --format='%h %cs')" -t machineid-sidecar:$version .
END
