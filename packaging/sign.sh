#!/usr/bin/env bash
# Signs a release: writes SHA256SUMS of all its files, and SHA256SUMS.sig with a key of ssh-keygen.
#
#     RELEASE_SIGNING_KEY=FILE packaging/sign.sh DIRECTORY
#     packaging/sign.sh --verify ALLOWED_SIGNERS DIRECTORY
#
# The private key is never in the repository. FILE may also be the public part of a key that an ssh agent or a hardware token holds.
# ALLOWED_SIGNERS is a line `releases@machineid.io ssh-ed25519 AAAA…`, which users have from another place than the release.
set -euo pipefail

identity=releases@machineid.io namespace=machineid-release
usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }

if [ "${1:-}" = --verify ]; then
    [ $# = 3 ] || usage
    signers=$(realpath -- "$2")
    cd -- "$3"
    ssh-keygen -Y verify -f "$signers" -I $identity -n $namespace -s SHA256SUMS.sig < SHA256SUMS
    sha256sum --check --strict --quiet SHA256SUMS
    exit
fi

[ $# = 1 ] || usage
[ -n "${RELEASE_SIGNING_KEY:-}" ] || { echo 'sign.sh: name the key in RELEASE_SIGNING_KEY' >&2; exit 1; }
key=$(realpath -- "$RELEASE_SIGNING_KEY")
cd -- "$1"
rm -f SHA256SUMS SHA256SUMS.sig
find . -maxdepth 1 -type f ! -name 'SHA256SUMS*' -printf '%f\n' | LC_ALL=C sort | xargs sha256sum -- > SHA256SUMS
ssh-keygen -q -Y sign -f "$key" -n $namespace SHA256SUMS
