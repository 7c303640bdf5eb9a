#!/usr/bin/env bash
# booted.sh runs this script inside the booted system, as root: from installation to purge. Each sentence is a test.
set -uo pipefail

passed=0 failed=0
say() { printf '%s - %s\n' "$1" "$2"; }
# ok "sentence" COMMAND...: passes when the command succeeds.
ok() {
    local sentence=$1 output
    shift
    if output=$("$@" 2>&1); then
        say ok "$sentence"
        passed=$((passed + 1))
    else
        say 'not ok' "$sentence"
        failed=$((failed + 1))
        printf '%s\n' "$output" | sed 's/^/    /' | tail -20
        journalctl -n 25 --no-pager -o cat -u 'machineid*' 2>/dev/null | sed 's/^/    | /'
    fi
}
# until SECONDS COMMAND...: waits for it to succeed.
until_() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        if [ $SECONDS -ge $end ]; then echo "not within the time: $*"; return 1; fi
        sleep 0.1
    done
}
is() { [ "$1" = "$2" ] || { echo "it is: $1"; echo "not:   $2"; return 1; }; }
has() { grep -q -- "$2" <<< "$1" || { echo "there is no \"$2\" in: $1"; return 1; }; }
silent() { local output; output=$("$@" 2>&1); [ -z "$output" ] || { echo "$output"; return 1; }; }
lacks() { ! grep -q -- "$2" <<< "$1" || { echo "there is \"$2\" in: $1"; return 1; }; }
property() { systemctl show -p "$2" --value "$1"; }
property_is() { is "$(property "$1" "$2")" "$3"; }
replaced() { local now; now=$(main); [ "$now" != "$1" ] && [ "$now" != 0 ]; }
main() { property machineid-sidecar MainPID; }
check() { curl -s --max-time 10 --unix-socket /run/machineid/sidecar.sock "http://localhost/v1/check"; }
checked() { curl -s -o /dev/null -w '%{http_code}' --max-time 10 --unix-socket /run/machineid/sidecar.sock "http://localhost/v1/check"; }
is_check() { is "$(checked)" "$1"; }
fleet() { machineid "$@" --yes --org-key-file /root/admin-key --url unix:/run/machineid-authority/api.sock; }
gone() { local pid; [ $# -gt 0 ] || { echo "no pid was given"; return 1; }; for pid in "$@"; do [ ! -e "/proc/$pid" ] || { echo "$pid is there: $(tr '\0' ' ' < "/proc/$pid/cmdline")"; return 1; }; done; }
alive() { local pid; [ $# -gt 0 ] || { echo "no pid was given"; return 1; }; for pid in "$@"; do [ -e "/proc/$pid" ] || { echo "$pid is gone"; return 1; }; done; }
# The main PID of a unit without a process is 0, and kill 0 would signal this script's own group.
halt() { local pid; for pid in "$@"; do [ "$pid" = 0 ] || kill -STOP "$pid"; done; }
# The processes of an agent's unit without the wrapper and the guardian.
agents() { # NAME
    local group
    group=$(property "machineid-agent@$1" ControlGroup)
    find /sys/fs/cgroup/unified"$group" /sys/fs/cgroup"$group" -path '*/machineid-*' -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u
}
status_says() { has "$(machineid status 2>&1)" "$1"; }
files() { find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run/systemd -o -path /run/log -o -path /tmp -o -path /debs \
    -o -path /var/log/journal -o -path /var/lib/dpkg -o -path /var/lib/systemd -o -path /var/cache \) -prune -o -print |
    grep -v -e '^/etc/.*-$' -e '^/var/log' -e '^/run/credentials' -e '^/root' -e '^/run/user' -e '^/etc/.pwd.lock' | sort; }

cat > /opt/stubborn.sh <<'END'
#!/bin/sh
# Ignores SIGTERM, and so does its child in a session of its own.
trap '' TERM
setsid sh -c 'trap "" TERM; while :; do sleep 1000; done' &
while :; do sleep 1000; done
END
chmod 755 /opt/stubborn.sh

files > /tmp/files.before
getent passwd > /tmp/passwd.before
getent group > /tmp/group.before

# --- an authority of our own ------------------------------------------------------------------------------------------
dpkg -i /debs/machineid-authority_*-1_*.deb > /tmp/dpkg.authority 2>&1
ok "the authority's package installs and prints the next step" grep -q 'org create' /tmp/dpkg.authority
ok "and the one after it, a key for the hosts" grep -q 'org key create ORG --role host' /tmp/dpkg.authority
ok "the authority serves" until_ 20 curl -sf http://127.0.0.1:8424/healthz
api=/run/machineid-authority/api.sock
ok "by its unix socket, too" curl -sf --unix-socket "$api" http://localhost/healthz
ok "which every user may open" setpriv --reuid nobody --regid nogroup --clear-groups curl -sf --unix-socket "$api" http://localhost/healthz
ok "and no other user may replace" is "$(stat -c '%U %a' /run/machineid-authority)" 'machineid-authority 755'
ok "it tells its users apart" has "$(curl -s --unix-socket "$api" -H 'x-org-key: org_wrong' http://localhost/api/v1/usage; sleep 0.5; journalctl -o cat -n 20 -u machineid-authority)" 'client=uid:0'
ok "and runs as a user of its own, without a capability" \
    grep -Eq '^CapEff:\s+0+$' "/proc/$(property machineid-authority MainPID)/status"
database=sqlite:/var/lib/machineid-authority/authority.db
field() { sed -n 's/.*"'"$1"'": *"\([^"]*\)".*/\1/p'; }
org=$(machineid-authority org create --name test --plan max --json --database "$database")
(umask 077; field orgApiKey <<< "$org" > /root/admin-key)
key=$(machineid-authority org key create "$(field orgId <<< "$org")" --role host --name hosts --json --database "$database" | field orgApiKey)

# --- the daemon, without a key ------------------------------------------------------------------------------------------
dpkg -i /debs/machineid-sidecar_*-1_*.deb > /tmp/dpkg.sidecar 2>&1
ok "the package installs" test -x /usr/bin/machineid-run
ok "it brings the pages" test -s /usr/share/doc/machineid-sidecar/docs/operations.md
exempt() { perl -e 'our %nrconf; do "/etc/needrestart/conf.d/machineid.conf" or die $@ || $!; my ($rule) = keys %{$nrconf{override_rc}};
    exit !("machineid-agent\@demo.service" =~ $rule && "machineid-sidecar.service" !~ $rule)'; }
ok "needrestart leaves running agents alone, and the daemon not" exempt
if [ "$(apparmor_parser --version 2>/dev/null | sed -n 's/.*version \([0-9]*\).*/\1/p')" -ge 4 ] 2>/dev/null; then
    ok "AppArmor's parser takes the profile" apparmor_parser -Q -K /usr/share/machineid-sidecar/apparmor/machineid-run
else
    echo "SKIPPED - the AppArmor profile: there is no parser of version 4 here"
fi
ok "it prints the next step" grep -q '/etc/machineid/org-key' /tmp/dpkg.sidecar
ok "without a key the service runs and waits" systemctl -q is-active machineid-sidecar
ok "and says what to do, in its status" has "$(systemctl status machineid-sidecar)" 'install -m 600'
ok "and in its answers, which are no" has "$(check)" '"allowed":false.*install -m 600'
ok "with a status that says it may change" is "$(checked)" 503
ok "an agent does not start, and is told why" \
    has "$(machineid-run -- true 2>&1; echo "exit $?")" 'no org key'
ok "with the code of a refusal that may change" is "$(machineid-run -q -- true 2> /dev/null; echo $?)" 75
sleep 3
ok "it does not flap" is "$(property machineid-sidecar NRestarts)" 0
ok "the units are clean" silent systemd-analyze verify --man=no machineid-sidecar.service machineid-sidecar.socket \
    machineid-sidecar-leaf.service machineid-sidecar-leaf.socket machineid-sidecar-key.path machineid-agent@x.service \
    machineid-authority.service machineid-authority.socket

# --- the key comes ---------------------------------------------------------------------------------------------------------
sed -i 's|^url = .*|url = "unix:/run/machineid-authority/api.sock"|; s|^stop_grace = .*|stop_grace = "2s"|; s|^interval = .*|interval = "1s"|' \
    /etc/machineid/machineid-sidecar.toml
install -m 600 /dev/stdin /etc/machineid/org-key <<< "$key"
ok "when the key comes the service takes it by itself" until_ 20 is_check 200
ok "the key is in no environment and no argument" \
    lacks "$(tr '\0' '\n' < "/proc/$(main)/environ"; tr '\0' '\n' < "/proc/$(main)/cmdline")" "$key"
ok "and can be read by root alone" is "$(stat -c '%U %a' /etc/machineid/org-key)" 'root 600'
ok "it is a host's key, as the metrics say" \
    has "$(curl -s --max-time 10 --unix-socket /run/machineid/sidecar.sock http://localhost/metrics)" 'org_key_role{role="host"} 1'
ok "the socket belongs to the group machineid" is "$(stat -c '%G %a' /run/machineid/sidecar.sock)" 'machineid 660'
ok "a user outside that group may not ask" \
    has "$(setpriv --reuid nobody --regid nogroup --clear-groups curl -sS --unix-socket /run/machineid/sidecar.sock http://x/v1/check 2>&1)" 'denied\|connect'
device=$(machineid status --json | sed -n 's/^ *"device_id": "\([^"]*\)".*/\1/p' | head -1)

# --- as in images for LXC ----------------------------------------------------------------------------------------------------
mkdir -p /run/systemd/system/service.d
printf '[Service]\nLoadCredential=\n' > /run/systemd/system/service.d/zzz-lxc-service.conf
systemctl daemon-reload
systemctl restart machineid-sidecar
ok "a key that systemd does not hand over is told from a missing one" has "$(check)" 'systemd was told not to hand it over'
install -d /run/systemd/system/machineid-sidecar.service.d
printf '[Service]\nLoadCredential=org-key:/etc/machineid/org-key\n' > /run/systemd/system/machineid-sidecar.service.d/zzzz-org-key.conf
systemctl daemon-reload
systemctl restart machineid-sidecar
ok "and with the drop-in of the message it is handed over" until_ 20 is_check 200
rm -r /run/systemd/system/service.d /run/systemd/system/machineid-sidecar.service.d
systemctl daemon-reload
systemctl restart machineid-sidecar
until_ 20 is_check 200

# --- what the daemon's user may do ---------------------------------------------------------------------------------------
ok "the daemon may stop processes, and has no capability for files" \
    is "$(sed -n 's/^CapEff:\s*//p' "/proc/$(main)/status")" 0000000000000020
# As the daemon, with all that it has: a socket like docker's, and the passwords.
python3 -c 'import os, socket; s = socket.socket(socket.AF_UNIX); s.bind("/run/docker.sock"); os.chmod("/run/docker.sock", 0o660); s.listen(); input()' \
    < <(sleep 1000) & docker=$!
until_ 5 test -S /run/docker.sock
as_daemon() { setpriv --reuid machineid-sidecar --regid machineid-sidecar --groups machineid --inh-caps=-all,+kill --ambient-caps=-all,+kill \
    --bounding-set=-all,+kill --no-new-privs -- "$@"; }
ok "a process with its rights cannot open docker's socket" \
    has "$(as_daemon curl -sS --max-time 5 --unix-socket /run/docker.sock http://x/ 2>&1)" 'denied\|connect'
ok "nor read /etc/shadow" has "$(as_daemon cat /etc/shadow 2>&1)" 'denied'
kill "$docker"
rm /run/docker.sock
ok "the leaf helper's socket is the daemon's" is "$(stat -c '%U %a' /run/machineid-sidecar-leaf.sock)" 'machineid-sidecar 600'

# --- an agent ----------------------------------------------------------------------------------------------------------------
mkdir -p /etc/machineid/agents
echo 'COMMAND=/opt/stubborn.sh' > /etc/machineid/agents/demo.conf
systemctl start machineid-agent@demo
ok "an agent of the template runs" until_ 20 status_says '^demo .*running'
ok "as a user of its own" is "$(stat -c %u "/proc/$(agents demo | head -1)" | grep -vc "^0$\|$(id -u machineid-sidecar)")" 1
ok "in a control group that the leaf helper made, which holds against hostile agents" status_says 'holds against hostile'
ok "as the journal says" has "$(journalctl -o cat -u machineid-sidecar-leaf)" 'machineid-agent@demo.service/machineid-'
tree=$(agents demo)
ok "with all its processes" test "$(wc -w <<< "$tree")" -ge 3
wrapper=$(property machineid-agent@demo MainPID)
halt "$wrapper"
fleet revoke "$device" > /dev/null
ok "revoked, with its wrapper halted, the daemon ends all of it, another user's processes though they are" until_ 20 gone $tree
ok "the wrapper ends" until_ 10 gone "$wrapper"
ok "the unit has failed" until_ 10 property_is machineid-agent@demo ActiveState failed
sleep 6
ok "and is not started again" is "$(property machineid-agent@demo NRestarts)" 0
ok "a check is denied" is "$(checked)" 403
echo 'COMMAND=/bin/true' > /etc/machineid/agents/denied.conf
systemctl start machineid-agent@denied
ok "an agent that is denied from the start ends with 77" until_ 10 property_is machineid-agent@denied ExecMainStatus 77
ok "the host's own key cannot lift the revoke" \
    has "$(machineid unrevoke "$device" --yes --org-key-file /etc/machineid/org-key --url http://127.0.0.1:8424 2>&1; echo "exit $?")" 'not_permitted'
ok "so a check stays denied" is "$(checked)" 403
fleet unrevoke "$device" > /dev/null
ok "an unrevoke is an ALLOW again" until_ 10 is_check 200
ok "and starts nothing by itself" is "$(property machineid-agent@demo ActiveState)" failed

# --- upgrade ----------------------------------------------------------------------------------------------------------------
systemctl reset-failed machineid-agent@demo
systemctl start machineid-agent@demo
ok "the agent runs again" until_ 20 status_says '^demo .*running'
tree=$(agents demo) before=$(main)
echo '# an administrator was here' >> /etc/machineid/machineid-sidecar.toml
dpkg-deb -R /debs/machineid-sidecar_*-1_*.deb /tmp/next
sed -i 's/^Version: .*/Version: 99.0-1/' /tmp/next/DEBIAN/control
echo '# a new default' >> /tmp/next/etc/machineid/machineid-sidecar.toml
sed -i 's/^Backlog=.*/Backlog=512/; s/^SocketMode=0660/SocketMode=0666/' /tmp/next/usr/lib/systemd/system/machineid-sidecar.socket
dpkg-deb --root-owner-group -Zgzip -b /tmp/next /tmp/next.deb > /dev/null
dpkg --force-confold -i /tmp/next.deb > /tmp/dpkg.upgrade 2>&1
ok "an upgrade keeps an edited configuration" grep -q 'an administrator was here' /etc/machineid/machineid-sidecar.toml
ok "and puts the new default beside it" test -e /etc/machineid/machineid-sidecar.toml.dpkg-dist
ok "the daemon is another" test "$before" != "$(main)"
ok "which serves" until_ 20 is_check 200
ok "by the socket of the new unit" is "$(stat -c %a /run/machineid/sidecar.sock) $(property machineid-sidecar.socket Backlog)" '666 512'
ok "no agent is lost" alive $tree
ok "the new daemon has taken it over" until_ 10 status_says '^demo .*running'
sleep 3
ok "and it lives on" alive $tree

# --- restarts, the watchdog, socket activation -----------------------------------------------------------------------------------
before=$(main)
[ "$before" = 0 ] || kill -KILL "$before"
ok "killed, the daemon comes back" until_ 20 is_check 200
ok "and no agent is lost" alive $tree
before=$(main)
mkdir -p /run/systemd/system/machineid-sidecar.service.d
printf '[Service]\nWatchdogSec=2s\n' > /run/systemd/system/machineid-sidecar.service.d/quick.conf
systemctl daemon-reload
systemctl restart machineid-sidecar
until_ 20 is_check 200
sleep 5
ok "a healthy daemon keeps its watchdog content" is "$(property machineid-sidecar NRestarts)" 0
before=$(main)
halt "$before"
ok "a hung one is replaced by it" until_ 30 replaced "$before"
ok "which serves" until_ 20 is_check 200
ok "and no agent is lost" alive $tree
rm -r /run/systemd/system/machineid-sidecar.service.d
systemctl daemon-reload
before=$(main)
systemctl stop machineid-sidecar
ok "stopped, it ends" gone "$before"
ok "a question starts it: its socket is systemd's" until_ 20 is_check 200
ok "and no agent is lost" alive $tree
before=$(main)
ok "a stop may take what the configuration says" status_says 'stop bound *7s while'
sed -i 's|^stop_grace = .*|stop_grace = "1s"|' /etc/machineid/machineid-sidecar.toml
ok "a reload is taken without a restart" systemctl reload machineid-sidecar
ok "by the same process" is "$(main)" "$before"
if journalctl -o cat -n 50 -u machineid-sidecar | grep -q 'takes effect at the next start'; then
    echo "SKIPPED - whether it is in force: this daemon takes a changed configuration at its next start"
else
    ok "and is in force" until_ 10 status_says 'stop bound *6s while'
fi

# --- the authority's sockets are systemd's --------------------------------------------------------------------------------------------
squat='import socket as s; it = s.socket(); it.setsockopt(s.SOL_SOCKET, s.SO_REUSEADDR, 1); it.bind(("127.0.0.1", 8424)); it.listen(); print("taken")'
as_nobody() { setpriv --reuid nobody --regid nogroup --clear-groups "$@" 2>&1; }
before=$(property machineid-authority MainPID)
systemctl kill --signal=STOP machineid-sidecar
systemctl stop machineid-authority
ok "while the authority is stopped, its port is not free" \
    has "$(as_nobody python3 -c "$squat")" 'already in use'
systemctl kill --signal=CONT machineid-sidecar
ok "a question starts it again" until_ 20 is_check 200
ok "as another process" test "$before" != "$(property machineid-authority MainPID)"
ok "and no agent is lost" alive $tree
sed -i 's|^OPTIONS=.*|OPTIONS=--nonsense|' /etc/default/machineid-authority
systemctl restart machineid-authority
sleep 3
ok "an authority that cannot start leaves its sockets to systemd" property_is machineid-authority.socket ActiveState active
ok "its port is still not free" has "$(as_nobody python3 -c "$squat")" 'already in use'
sed -i 's|^OPTIONS=.*|OPTIONS=|' /etc/default/machineid-authority
ok "corrected, it serves again by itself" until_ 20 is_check 200
ok "and no agent is lost" alive $tree

# --- a reload that is waited for ------------------------------------------------------------------------------------------------------
if [ "$(systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')" -ge 253 ]; then
    install -D -m 644 /usr/share/doc/machineid-sidecar/examples/systemd/notify-reload.conf -t /etc/systemd/system/machineid-sidecar.service.d
    systemctl daemon-reload
    systemctl restart machineid-sidecar
    ok "as notify-reload the daemon serves" until_ 20 is_check 200
    before=$(main)
    sed -i 's|^stop_grace = .*|stop_grace = "3s"|' /etc/machineid/machineid-sidecar.toml
    ok "a reload is taken" systemctl reload machineid-sidecar
    ok "and is in force when the command returns" status_says 'stop bound *8s while'
    ok "in the same process" is "$(main)" "$before"
    ok "and no agent is lost" alive $tree
    sed -i 's|^stop_grace = .*|stop_grace = "1s"|' /etc/machineid/machineid-sidecar.toml
    rm -r /etc/systemd/system/machineid-sidecar.service.d
    systemctl daemon-reload
    systemctl restart machineid-sidecar
    until_ 20 is_check 200
else
    echo "SKIPPED - notify-reload: this systemd is older than 253"
fi

# --- without the leaf helper -------------------------------------------------------------------------------------------------------
systemctl stop machineid-sidecar-leaf.socket machineid-sidecar-leaf.service
ok "stopped, the helper's socket is gone" test ! -e /run/machineid-sidecar-leaf.sock
echo 'COMMAND=/opt/stubborn.sh' > /etc/machineid/agents/loose.conf
systemctl start machineid-agent@loose
ok "agents start" until_ 20 status_says '^loose .*running'
ok "status says what is lost" status_says 'holds against bugs'
ok "doctor says it too, with the remedy" has "$(setpriv --reuid nobody --regid nogroup --groups machineid machineid doctor 2>&1)" 'warn  containment.*against bugs'
loose=$(systemd-cgls --no-pager -u machineid-agent@loose.service 2>/dev/null | sed -n 's/.*─\([0-9]*\) .*/\1/p')
ok "the loose agent's processes are found" test "$(wc -w <<< "$loose")" -ge 5
halt "$(property machineid-agent@demo MainPID)" "$(property machineid-agent@loose MainPID)"
fleet revoke "$device" > /dev/null
ok "revoked, it still ends agents of other users, their wrappers halted" until_ 25 gone $tree $loose
systemctl start machineid-sidecar-leaf.socket
fleet unrevoke "$device" > /dev/null
until_ 20 is_check 200

# --- a container that is not allowed much ------------------------------------------------------------------------------------------
echo 'COMMAND=/opt/stubborn.sh' > /etc/machineid/agents/narrow.conf
mkdir -p /run/systemd/system/machineid-agent@narrow.service.d
printf '[Service]\nSystemCallFilter=~pidfd_open pidfd_send_signal clone3\nSystemCallErrorNumber=ENOSYS\nProtectControlGroups=yes\n' \
    > /run/systemd/system/machineid-agent@narrow.service.d/narrow.conf
systemctl daemon-reload
systemctl start machineid-agent@narrow
if until_ 10 status_says '^narrow .*running'; then
    tree=$(agents narrow)
    fleet revoke "$device" > /dev/null
    ok "an agent whose wrapper has no pidfd is ended" until_ 20 gone $tree
    fleet unrevoke "$device" > /dev/null
    until_ 20 is_check 200
else
    ok "a wrapper without pidfd says what is missing and starts nothing" has "$(journalctl -o cat -u machineid-agent@narrow)" 'pidfd'
fi
ok "doctor names it" has "$(systemd-run --quiet --pipe --wait --collect -p 'SystemCallFilter=~pidfd_open pidfd_send_signal' -p SystemCallErrorNumber=ENOSYS machineid doctor 2>&1)" '\(warn\|fail\)  kernel.*pidfd'

# --- places ---------------------------------------------------------------------------------------------------------------------------
as_unit() { systemd-run --quiet --pipe --wait --collect "$@" 2>&1; }
ok "with nothing but read-only file systems agents start" has "$(as_unit -p ProtectSystem=strict -p ReadOnlyPaths=/ -p 'ReadWritePaths=' machineid-run -- echo here)" here
ok "without HOME, PATH and a terminal too" has "$(env -i /usr/bin/machineid-run -- /bin/echo here < /dev/null 2>&1)" here
ok "arguments that are not UTF-8 arrive as they are" is "$(machineid-run -- printf '%s' $'\xff\xfe' | od -An -tx1 | tr -d ' ')" fffe
ok "an environment that is not UTF-8 too" is "$(LC_ALL=C TORN=$'\xff' machineid-run -- sh -c 'printf %s "$TORN"' | od -An -tx1 | tr -d ' ')" ff
mount -o remount,noexec /run
systemctl restart machineid-sidecar
ok "with /run noexec the daemon serves" until_ 20 is_check 200
ok "and agents start" machineid-run -- true
mount -o remount,exec /run
mount -t tmpfs -o size=64k tmpfs /var/lib/machineid-sidecar
chown machineid-sidecar: /var/lib/machineid-sidecar
dd if=/dev/zero of=/var/lib/machineid-sidecar/full bs=4k 2>/dev/null
systemctl restart machineid-sidecar
ok "with a full disk the daemon serves" until_ 20 is_check 200
ok "and says what it could not keep" has "$(journalctl -o cat -n 20 -u machineid-sidecar)" 'No space left\|os error 28'
umount /var/lib/machineid-sidecar
echo 'nonsense = true' >> /etc/machineid/machineid-sidecar.toml
systemctl restart machineid-sidecar
sleep 3
ok "a wrong configuration fails the unit once, and does not flap" is "$(property machineid-sidecar ActiveState) $(property machineid-sidecar NRestarts)" 'failed 0'
ok "its status says which line" has "$(systemctl status machineid-sidecar)" 'nonsense'
sed -i '/^nonsense/d' /etc/machineid/machineid-sidecar.toml
systemctl reset-failed machineid-sidecar
systemctl start machineid-sidecar
ok "with a correct configuration, it serves again" until_ 20 is_check 200

# --- a user's own daemon ------------------------------------------------------------------------------------------------------------
useradd -m laptop
uid=$(id -u laptop) home=/home/laptop
as_laptop() { setpriv --reuid laptop --regid laptop --init-groups env -i HOME=$home XDG_RUNTIME_DIR="/run/user/$uid" PATH=/usr/bin:/bin "$@"; }
own=/run/user/$uid/machineid/sidecar.sock
own_check() { is "$(curl -s -o /dev/null -w '%{http_code}' --max-time 10 --unix-socket "$own" http://localhost/v1/check)" "$1"; }
own_says() { has "$(as_laptop machineid status --socket "$own" 2>&1)" "$1"; }
# A login would set these; there is no login here.
mkdir -p /run/systemd/system/user@.service.d
printf '[Service]\nEnvironment=XDG_RUNTIME_DIR=/run/user/%%i\n' > /run/systemd/system/user@.service.d/place.conf
systemctl daemon-reload
if systemctl start "user@$uid" && until_ 20 test -S "/run/user/$uid/systemd/private"; then
    as_laptop mkdir -p $home/.config/machineid
    install -m 600 -o laptop -g laptop /dev/stdin $home/.config/machineid/org-key <<< "$key"
    as_laptop tee $home/.config/machineid/machineid-sidecar.toml > /dev/null <<END
[authority]
url = "http://127.0.0.1:8424"
org_key_file = "$home/.config/machineid/org-key"
[device]
id = "laptop:1"
[enforcement]
interval = "1s"
stop_grace = "1s"
END
    ok "a user's own unit starts" as_laptop systemctl --user start machineid-sidecar
    ok "and answers on a socket of that user" until_ 20 own_check 200
    as_laptop machineid-run --socket "$own" --name own -- /opt/stubborn.sh 2> /tmp/own.err &
    own_run=$!
    ok "an agent runs under it" until_ 20 own_says '^own .*running'
    tree=$(pgrep -u laptop -f stubborn.sh)
    before=$(as_laptop systemctl --user show -p MainPID --value machineid-sidecar)
    as_laptop systemctl --user restart machineid-sidecar
    ok "a restart of it" until_ 20 own_check 200
    ok "is another daemon" test "$before" != "$(as_laptop systemctl --user show -p MainPID --value machineid-sidecar)"
    ok "and loses no agent" alive $tree
    ok "which it takes over" until_ 10 own_says '^own .*running'
    fleet revoke laptop:1 > /dev/null
    ok "revoked, all of it is gone" until_ 20 gone $tree
    wait "$own_run"
    ok "with the code of a deny" is "$?" 77
    as_laptop systemctl --user stop machineid-sidecar
    ok "stopped, it leaves no socket" test ! -e "$own"
else
    echo "SKIPPED - a user's own unit: no user manager starts here"
fi
systemctl stop "user@$uid" "user-runtime-dir@$uid"
rm -r /run/systemd/system/user@.service.d
systemctl daemon-reload
userdel -r laptop 2> /dev/null

# --- the end ---------------------------------------------------------------------------------------------------------------------------
echo 'COMMAND=/bin/sleep 1000' > /etc/machineid/agents/last.conf
systemctl start machineid-agent@last
until_ 20 status_says '^last .*running'
systemctl stop machineid-agent@last
ok "stopping an agent's unit ends it" is "$(property machineid-agent@last ActiveState)" inactive
systemctl reset-failed
dpkg -r machineid-sidecar > /tmp/dpkg.remove 2>&1
ok "removed, nothing of it runs" has "$(pgrep -fa '^/usr/bin/machineid-sidecar' || echo nobody)" nobody
ok "and its configuration stays" test -e /etc/machineid/machineid-sidecar.toml
dpkg -P machineid-sidecar > /tmp/dpkg.purge 2>&1
dpkg -P machineid-authority >> /tmp/dpkg.purge 2>&1
rm -f /opt/stubborn.sh
rm -rf /run/systemd/system/machineid-agent@narrow.service.d /var/lib/private/machineid-agent /var/lib/machineid-agent
files > /tmp/files.after
touch /opt/stubborn.sh
ok "nor of its helper" test ! -e /run/machineid-sidecar-leaf.sock
ok "purged, no file is left" diff <(grep -v stubborn /tmp/files.before) /tmp/files.after
ok "no user is left" diff /tmp/passwd.before <(getent passwd)
ok "and no group" diff /tmp/group.before <(getent group)
ok "nor a unit" lacks "$(systemctl list-units --all --no-legend 'machineid-[sa]*' | grep -v machineid-test)" machineid

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
