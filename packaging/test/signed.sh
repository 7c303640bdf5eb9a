#!/usr/bin/env bash
# Tests that install.sh installs a signed archive, and nothing else.
#
#     packaging/test/signed.sh ARCHIVE
set -uo pipefail
cd "$(dirname "$0")/../.." || exit
archive=$(realpath -- "${1:?the portable archive}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. packaging/test/outcome.sh
command -v ssh-keygen > /dev/null || { skip 'signatures: there is no ssh-keygen'; outcome; exit; }

name=$(basename "$archive")
mkdir "$work/release"
cp "$archive" packaging/install.sh "$work/release/"
for key in project other; do ssh-keygen -q -t ed25519 -N '' -C '' -f "$work/$key"; done
RELEASE_SIGNING_KEY=$work/project packaging/sign.sh "$work/release"
echo "releases@machineid.io $(cat "$work/project.pub")" > "$work/signers"
echo "releases@machineid.io $(cat "$work/other.pub")" > "$work/others"
install() { "$work/release/install.sh" --archive "$work/release/$name" --destdir "$work/root" "$@"; }
refused() { # WORDS ARGUMENT...: it says so, and installs nothing
    local words=$1 said
    shift
    said=$(install "$@" 2>&1) && return 1
    grep -q "$words.*nothing was installed" <<< "$said" && [ ! -e "$work/root" ] || { echo "$said"; return 1; }
}
ok 'without the key of the project nothing is installed' refused 'name the file with the project'
ok 'nor with the key of another' refused 'is no signature of' --signers "$work/others"
cp "$work/release/$name" "$work/kept"
printf x >> "$work/release/$name"
ok 'nor a changed archive' refused 'is not the file that was signed' --signers "$work/signers"
(cd "$work/release" && sha256sum "$name" install.sh > SHA256SUMS)
ok 'nor one with new sums' refused 'is no signature of' --signers "$work/signers"
mv "$work/kept" "$work/release/$name"
mv "$work/release/SHA256SUMS.sig" "$work/sig"
ok 'nor one without a signature' refused 'there is no .*SHA256SUMS.sig' --signers "$work/signers"
RELEASE_SIGNING_KEY=$work/project packaging/sign.sh "$work/release"
cp "$work/release/$name" "$work/release/renamed.tar.gz"
name=renamed.tar.gz
ok 'nor one that the sums do not name' refused 'SHA256SUMS does not name' --signers "$work/signers"
name=$(basename "$archive")
ok 'what the project signed is installed' install --signers "$work/signers" --part sidecar
ok 'with its programs, and not the other part' test -x "$work/root/usr/local/bin/machineid-run" -a ! -e "$work/root/usr/local/bin/machineid-authority"
outcome
