#!/bin/sh
# runc: a tmpfs over a directory that the image has gets that directory's mode, whatever its own option mode= says, and root as owner.
# So `docker run --tmpfs /var/lib/app:mode=1777` or a compose file's `tmpfs:` gives a service that is not root a directory that it can
# write to where the image has no such directory, and one that it cannot write to where the image has made it for the service (here
# 0700 of uid 65532). The option uid= is kept.
#
# A service that must run with a read-only root declares such directories as volumes: these have the image's owner and mode.
#
# Seen with runc 1.1.5 (Debian 12), Linux 6.18; directory in the image, option of the tmpfs, what the container sees:
#   none mode=1777 -> 1777 0
#   0700 mode=1777 -> 700 0
#   0700 mode=0700,uid=65532 -> 700 65532
# Exit code 1 when this has changed. Needs root, python3 and Debian's packages. About 5 s.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
cd "$dir"
apt-get download -qq runc=1.1.5+ds1-1+deb12u1 busybox-static > /dev/null 2>&1
for package in *.deb; do dpkg-deb -x "$package" packages; done
runc=$dir/packages/usr/sbin/runc
"$runc" --version | head -1
mkdir -p bundle/rootfs/bin bundle/rootfs/proc
cp packages/bin/busybox bundle/rootfs/bin/busybox
cd bundle
seen=''
try() { # MODE-OF-THE-DIRECTORY OPTIONS
    rm -rf rootfs/covered config.json
    [ "$1" = none ] || { mkdir rootfs/covered && chown 65532:65532 rootfs/covered && chmod "$1" rootfs/covered; }
    "$runc" spec
    python3 - "$2" <<'EOF'
import json, sys

spec = json.load(open("config.json"))
spec["process"].update(terminal=False, args=["/bin/busybox", "stat", "-c", "%a %u", "/covered"])
spec["root"]["readonly"] = False
spec["mounts"] = [{"destination": "/proc", "type": "proc", "source": "proc"},
                  {"destination": "/covered", "type": "tmpfs", "source": "tmpfs", "options": sys.argv[1].split(",")}]
json.dump(spec, open("config.json", "w"))
EOF
    line="$1 $2 -> $("$runc" --root "$dir/state" run "finding-$$-$(date +%N)")"
    echo "  $line"
    seen="$seen$line
"
}
umask 022
try none mode=1777
try 0700 mode=1777
try 0700 mode=0700,uid=65532
[ "$seen" = "none mode=1777 -> 1777 0
0700 mode=1777 -> 700 0
0700 mode=0700,uid=65532 -> 700 65532
" ]
