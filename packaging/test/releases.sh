#!/usr/bin/env bash
# The release list: the packages on a booted system of each distribution, and the RPM in a chroot. CI tests one distribution.
#
#     packaging/test/releases.sh DEBS-DIRECTORY [SUITE…]      [default: bookworm trixie]
#
# For a suite that this system's mirror does not have, as Ubuntu's: BOOTED_MIRROR=URL packaging/test/releases.sh DEBS noble
set -uo pipefail
cd "$(dirname "$0")/../.." || exit
debs=${1:?the directory of the packages}
shift
[ $# -gt 0 ] || set -- bookworm trixie
passed=0 failed=0
for suite in "$@"; do
    echo "=== $suite"
    if packaging/test/booted.sh "$debs" "$suite"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
done
echo '=== RPM'
if packaging/test/rpm.sh "${BIN:-target/dist/bin}"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
echo "$passed passed, $failed failed"
[ $failed = 0 ]
