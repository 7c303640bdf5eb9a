#!/usr/bin/env bash
# Tests the images, the compose example and the manifests with podman, as root and as an ordinary user: each form starts, a revoke
# stops the agent with the right exit code, and no process is left.
#
#     packaging/test/podman.sh [DIRECTORY-OF-THE-PROGRAMS]      [default: target/debug]
#
# About eight minutes, so it is on the release list and not part of CI. Needs root and Debian's packages; says SKIPPED without
# them. Nothing is compiled and nothing is pulled: the base image is made with debootstrap and kept in target/podman (or
# $PODMAN_BASE), and stands for debian:bookworm-slim and python:3.13-slim.
#
# The runtime is runc: Docker and containerd use it too, and crun refuses hosts with both versions of control groups ("cgroups in hybrid
# mode not supported"). --runtime-name crun runs the same with crun. Networks are the host's or none: bridges need netavark and
# nftables, and no example depends on one. Control groups are cgroupfs, since there may be no systemd; without one podman has no timer
# for health checks either, so they are run by hand.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit
runtime=runc bin=target/debug modes=(rootful rootless)
while [ $# -gt 0 ]; do
    case $1 in
        --runtime-name) runtime=$2; shift 2 ;;
        --mode) modes=("$2"); shift 2 ;;
        -*) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
        *) bin=$1; shift ;;
    esac
done
bin=$(realpath -- "$bin")

. packaging/test/outcome.sh
no() { ! "$@"; }

# --- tools -----------------------------------------------------------------------------------------------------------
nothing() { echo "SKIPPED: packaging/test/podman.sh: $*"; exit 0; }
[ "$(id -u)" = 0 ] || nothing 'must be root: it makes a user for the rootless part'
needed=()
need() { command -v "$1" > /dev/null || [ -x "$1" ] || needed+=("$2"); }
need podman podman
need "$runtime" "$runtime"
need debootstrap debootstrap
need newuidmap uidmap
need /usr/bin/catatonit catatonit
if [ ${#needed[@]} -gt 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${needed[@]}" > /dev/null ||
        nothing "cannot install ${needed[*]}"
fi
podman --version
"$runtime" --version | head -1

# --- the base --------------------------------------------------------------------------------------------------------
base=$(realpath -m "${PODMAN_BASE:-target/podman/base}")
if [ ! -e "$base.tar" ]; then
    echo "making a Debian root in $base"
    mkdir -p "$base"
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2> /dev/null | head -1)
    # What the Dockerfile installs is there already, so that a build needs no network.
    debootstrap --variant=minbase --include=ca-certificates,python3-minimal,libcap2-bin bookworm "$base" \
        ${mirror:+"$mirror"} > "$base.log" 2>&1 || { tail -5 "$base.log"; nothing 'debootstrap failed'; }
    rm -rf "$base"/var/cache/apt/archives/*.deb "$base"/var/lib/apt/lists/* "$base"/usr/share/{doc,man,locale,info}/*
    tar -C "$base" -cf "$base.tar.new" . && mv "$base.tar.new" "$base.tar" && rm -rf "$base"
fi

# --- a place and a user of its own -----------------------------------------------------------------------------------
work=$(mktemp -d /var/tmp/mid-podman.XXXXXX)
chmod 755 "$work"
user=mid-podman-$$
name() { echo "mid$$-$1"; }
# Root of a container that may not raise limits would fail at podman's own defaults.
cat > "$work/containers.conf" <<END
[containers]
netns = "none"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "$runtime"
END
export CONTAINERS_CONF=$work/containers.conf
as() { # COMMAND...: as the mode's user. A build without root has no network of its own: chroot needs none.
    case $mode in
        rootful) env HOME="$work/rootful" "$@" ;;
        rootless)
            (cd "$work/rootless" && exec setpriv --reuid $user --regid $user --init-groups env -i HOME="$work/rootless" LANG=C.UTF-8 \
                XDG_RUNTIME_DIR="$work/rootless/run" CONTAINERS_CONF="$CONTAINERS_CONF" \
                BUILDAH_ISOLATION=chroot PATH="$PATH" "$@")
            ;;
    esac
}
pod() { as "$work/$mode.podman" "$@"; }
clean_up() { # of one mode: what this script made, by name
    [ -d "$work/$mode" ] || return
    local one
    for one in $(pod pod ps -q --filter "name=$(name '')" 2> /dev/null); do pod pod rm -f -t 0 "$one" > /dev/null 2>&1; done
    for one in $(pod ps -aq --filter "name=$(name '')" 2> /dev/null); do pod rm -f -t 0 "$one" > /dev/null 2>&1; done
    # The process that keeps a rootless user's namespaces.
    if [ "$mode" = rootless ] && one=$(cat "$work/rootless/run/libpod/tmp/pause.pid" 2> /dev/null); then kill "$one"; fi
    umount "$work/$mode/storage/overlay" 2> /dev/null
}
finish() {
    for mode in "${modes[@]}"; do clean_up; done
    id "$user" > /dev/null 2>&1 && userdel "$user" 2> /dev/null
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

# --- what is common to all forms ---------------------------------------------------------------------------------------
# An agent that ignores SIGTERM, with a child in a session of its own that does too.
cat > "$work/stubborn.py" <<'END'
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() != 0:
        os._exit(0)
print("ready", flush=True)
while True:
    time.sleep(1)
END
# All capabilities dropped, no new privileges, a root that cannot be written to: what a hardened cluster asks for.
locked=(--read-only --cap-drop all --security-opt no-new-privileges)

build() {
    mkdir -p "$work/programs/programs"
    [ -e "$work/programs/programs/machineid" ] ||
        for program in machineid{,-sidecar,-run,-leaf,-authority}; do
            strip -o "$work/programs/programs/$program" "$bin/$program" 2> /dev/null || cp "$bin/$program" "$work/programs/programs/" || return
        done
    echo 'COPY programs /programs' | sed '1i FROM docker.io/library/debian:bookworm-slim' > "$work/programs/Dockerfile"
    chmod -R a+rX "$work/programs"
    pod import -q "$base.tar" docker.io/library/debian:bookworm-slim &&
        pod tag docker.io/library/debian:bookworm-slim docker.io/library/python:3.13-slim &&
        pod build -q --pull=never -t localhost/machineid-built "$work/programs" &&
        pod build --pull=never --format docker --build-arg BUILDER=localhost/machineid-built -t localhost/machineid-sidecar "$source" &&
        pod build --pull=never --format docker --build-arg BUILDER=localhost/machineid-built --target authority \
            -t localhost/machineid-authority "$source"
}
# The images that the documentation and the compose example make of it.
build_agents() {
    mkdir -p "$work/$mode/entry" &&
        { echo 'FROM docker.io/library/python:3.13-slim'
          sed -n '/^```dockerfile/,/^```/{/^```/d;s/--from=machineid /--from=localhost\/machineid-sidecar /;p}' "$source/docs/containers.md"
        } > "$work/$mode/entry/Dockerfile" &&
        cp "$work/stubborn.py" "$work/$mode/entry/agent.py" && chmod -R a+rX "$work/$mode/entry" &&
        pod build -q --pull=never --format docker -t localhost/agent-entry "$work/$mode/entry"
}
authority() {
    pod run -d --no-healthcheck --name "$(name authority)" --network host "${locked[@]}" -v "$(name db):/var/lib/machineid-authority" \
        localhost/machineid-authority serve --listen "127.0.0.1:$port" --database sqlite:/var/lib/machineid-authority/authority.db &&
        within 30 pod exec "$(name authority)" machineid-authority org list --database "$database" || return
    # `ok` runs in a subshell: what others need is in files.
    pod exec "$(name authority)" machineid-authority org create --name test --plan max --json --database "$database" |
        key_of > "$work/$mode.operator" && new_key podman: "$mode" > "$work/$mode.host" && [ -s "$work/$mode.host" ]
}
database=sqlite:/var/lib/machineid-authority/authority.db
key_of() { grep -o '"org_[^"]*"\|"orgApiKey": *"[^"]*"' | grep -o 'org_[^"]*' | head -1; }
operate() { # ARGUMENTS of machineid, as the operator
    pod run --rm --no-healthcheck --network host --entrypoint /usr/bin/machineid -e MACHINEID_ORG_KEY="$(< "$work/$mode.operator")" -e MACHINEID_BASE_URL="$url" \
        localhost/machineid-sidecar "$@"
}
revoke() { operate revoke "$1" --reason 'a test'; }
unrevoke() { operate unrevoke "$1"; }
exit_code() { pod inspect --format '{{.State.Status}} {{.State.ExitCode}}' "$1"; }
ended_with() { # CODE CONTAINER
    [ "$(exit_code "$2")" = "exited $1" ] || { exit_code "$2"; pod logs "$2" 2>&1 | tail -5; return 1; }
}
# The processes of containers, as the host numbers them.
processes() { local one; for one in "$@"; do pod top "$one" hpid 2> /dev/null | tail -n +2; done | grep -v '^ *0$' | tr -d ' '; }
none_lives() { local one; for one in "$@"; do [ ! -d "/proc/$one" ] || { ps -o pid,stat,args -p "$one"; return 1; }; done; }
says() { pod logs "$1" 2>&1 | grep -q "$2"; } # CONTAINER TEXT
# CONTAINER DEVICE [PID]: revoke, and what must follow. PID is the daemon's, where the two share a namespace and it stays.
revoked_and_gone() {
    local agent=$1 pids
    pids=$(processes "$agent" | grep -vx "${3:-none}")
    [ "$(wc -l <<< "$pids")" -ge 3 ] || { echo "too few processes: $pids"; pod top "$agent" hpid args; return 1; }
    revoke "$2" || return
    # stop_grace is 1 s.
    # shellcheck disable=SC2086 # one word for each process
    within 8 ended_with 77 "$agent" && within 3 none_lives $pids
}
DAEMON=()
settings() { # DEVICE: the daemon's configuration, in a directory that is mounted
    local place=$work/$mode/$1
    mkdir -p "$place/etc" "$place/key"
    cat > "$place/etc/machineid-sidecar.toml" <<END
[authority]
url = "$url"
org_key_file = "/run/secrets/machineid/org-key"
timeout = "1s"
[device]
id = "podman:$1"
[enforcement]
interval = "500ms"
lease = "6s"
stop_grace = "1s"
[local]
mode = "0666"
END
    cp "$work/$mode.host" "$place/key/org-key"
    chmod -R a+rX "$place"
    DAEMON=(--health-interval disable --network host "${locked[@]}"
        -v "$place/etc:/etc/machineid:ro" -v "$place/key:/run/secrets/machineid:ro")
}

# --- the entrypoint form -------------------------------------------------------------------------------------------------
entry() { # NAME OPTIONS... -- COMMAND...
    local one
    one=$(name "$1")
    shift
    local options=()
    while [ $# -gt 0 ] && [ "$1" != -- ]; do options+=("$1"); shift; done
    shift
    pod run -d --name "$one" "${DAEMON[@]}" --tmpfs /run/machineid:mode=1777 --tmpfs /run/machineid-sidecar:mode=1777 --user 65532:65532 \
        -e RUNTIME_DIRECTORY=/run/machineid:/run/machineid-sidecar -e STATE_DIRECTORY=/var/lib/machineid-sidecar \
        "${options[@]}" -v "$work/stubborn.py:/agent.py:ro" localhost/agent-entry "$@"
}
entrypoints() {
    settings entry
    ok 'entrypoint: the agent starts, with a root that cannot be written to and no capability' entry entry -- python3 /agent.py
    within 20 says "$(name entry)" ready
    ok 'entrypoint: healthy' within 10 pod healthcheck run "$(name entry)"
    ok 'entrypoint: a revoke ends the container with 77 and leaves no process' revoked_and_gone "$(name entry)" podman:entry
    entry again -- python3 /agent.py > /dev/null
    ok 'entrypoint: while revoked, the next container ends with 77' within 20 ended_with 77 "$(name again)"

    settings code
    entry code -- sh -c 'exit 7' > /dev/null
    ok "entrypoint: the agent's own exit code is the container's" within 20 ended_with 7 "$(name code)"

    settings init
    entry init --init -- python3 /agent.py > /dev/null
    within 20 says "$(name init)" ready
    ok 'entrypoint under --init: a revoke ends it with 77 and leaves no process' revoked_and_gone "$(name init)" podman:init

    settings stop
    entry stop -- python3 -c 'import time; print("ready", flush=True); time.sleep(600)' > /dev/null
    within 20 says "$(name stop)" ready
    stopped() { pod stop -t 20 "$(name stop)" && ended_with 143 "$(name stop)"; }
    ok 'entrypoint: podman stop reaches the agent, and its code is 143' stopped

    settings pause
    entry pause -- python3 /agent.py > /dev/null
    within 20 says "$(name pause)" ready
    if pod pause "$(name pause)" > /dev/null 2>&1; then
        paused() {
            revoke podman:pause && sleep 1 && pod unpause "$(name pause)" && within 8 ended_with 77 "$(name pause)"
        }
        ok 'entrypoint: an agent revoked while its container was paused ends when it goes on' paused
    else
        skip 'pause: this user has no control group that can be frozen (cgroup v1, rootless)'
    fi
}

# --- the sidecar form -------------------------------------------------------------------------------------------------------
daemon() { # NAME OPTIONS...
    local one=$1
    shift
    pod run -d --name "$(name "$one-daemon")" "${DAEMON[@]}" -v "$(name "$one-socket"):/run/machineid" "$@" localhost/machineid-sidecar &&
        within 20 pod healthcheck run "$(name "$one-daemon")"
}
agent() { # NAME OPTIONS...
    local one=$1
    shift
    pod run -d --name "$(name "$one")" "${locked[@]}" --user 65533:65532 --network none -v "$(name "$one-socket"):/run/machineid:ro" \
        -v "$work/stubborn.py:/agent.py:ro" "$@" localhost/agent python3 /agent.py > /dev/null && within 20 says "$(name "$one")" ready
}
figures() { # of programs that are built for a release
    [ "$(stat -c %s "$work/programs/programs/machineid-sidecar")" -lt 30000000 ] || { skip 'size and memory: these are no release programs'; return; }
    size() { pod image inspect --format '{{.Size}}' "$1"; }
    over() { [ $(($(size localhost/machineid-sidecar) - $(size docker.io/library/debian:bookworm-slim))) -le 60000000 ]; }
    ok 'the image is at most 60 MB over its base' over
    resident() { grep -E 'VmRSS:[[:space:]]+([0-9]{1,4}|1[0-5][0-9]{3}|16[0-3][0-9]{2}) kB' "/proc/$(processes "$(name side-daemon)" | head -1)/status"; }
    ok 'the daemon has at most 16 MiB resident' resident
}
sidecars() {
    settings side
    ok 'sidecar: the daemon starts' daemon side
    ok 'sidecar: the agent starts, as another user without a network' agent side
    remote() { pod exec "$(name side-daemon)" machineid status --json | grep '"killer": *"wrapper"'; }
    ok 'sidecar: the wrapper ends the agent, and status says so' remote
    figures
    restarted() {
        local before
        before=$(processes "$(name side)")
        pod restart -t 5 "$(name side-daemon)" && within 20 pod healthcheck run "$(name side-daemon)" &&
            [ "$(processes "$(name side)")" = "$before" ]
    }
    ok 'sidecar: a restart of the daemon leaves the agent alone' restarted
    ok 'sidecar: after it, a revoke ends the agent with 77 and leaves no process' revoked_and_gone "$(name side)" podman:side

    settings lost
    daemon lost > /dev/null && agent lost
    lost() {
        local pids
        pids=$(processes "$(name lost)")
        pod kill "$(name lost-daemon)"
        # shellcheck disable=SC2086 # one word for each process
        within 15 ended_with 75 "$(name lost)" && none_lives $pids
    }
    ok 'sidecar: without its daemon the agent ends with its lease, with 75' lost

    settings both
    daemon both > /dev/null && agent both --init
    ok 'sidecar under --init: a revoke ends it with 77 and leaves no process' revoked_and_gone "$(name both)" podman:both

    settings frozen
    daemon frozen > /dev/null && agent frozen
    if pod pause "$(name frozen)" > /dev/null 2>&1; then
        frozen() { revoke podman:frozen && sleep 1 && pod unpause "$(name frozen)" && within 8 ended_with 77 "$(name frozen)"; }
        ok "sidecar: an agent revoked while its container was paused ends when it goes on" frozen
    else
        skip 'pause: this user has no control group that can be frozen (cgroup v1, rootless)'
    fi

    settings shared
    daemon shared > /dev/null
    agent shared --pid "container:$(name shared-daemon)" > /dev/null
    ok 'sidecar in one PID namespace: a revoke ends the agent with 77 and leaves no process' revoked_and_gone "$(name shared)" podman:shared \
        "$(pod inspect --format '{{.State.Pid}}' "$(name shared-daemon)")"

    settings rotated
    daemon rotated > /dev/null
    rotated() {
        local fresh
        fresh=$(new_key podman: rotated) || return
        echo "$fresh" > "$work/$mode/rotated/key/new" && chmod a+r "$work/$mode/rotated/key/new" &&
            mv "$work/$mode/rotated/key/new" "$work/$mode/rotated/key/org-key" &&
            within 10 says "$(name rotated-daemon)" 'in use\|new org key\|org key'
    }
    ok 'sidecar: a key renamed into the mounted directory is taken' rotated
}

new_key() { # PATTERN NAME: a key of the role host
    operate key create --role host --devices "$1*" --name "$2" --json | key_of
}

# --- places that the daemon cannot use ----------------------------------------------------------------------------------------
refused() { # TEXT OPTIONS...: the daemon ends at once, and says this
    local text=$1 output code
    shift
    output=$(pod run --rm --no-healthcheck --network host --read-only -v "$work/$mode/places/etc:/etc/machineid:ro" \
        -v "$work/$mode/places/key:/run/secrets/machineid:ro" "$@" localhost/machineid-sidecar 2>&1)
    code=$?
    [ $code -ne 0 ] && [ $code -ne 124 ] && grep -q -- "$text" <<< "$output" || { echo "$code: $output"; return 1; }
}
places() {
    settings places
    ok 'a root that cannot be written to is named with its remedy' refused 'mount a tmpfs or a volume at /run/other' \
        -e RUNTIME_DIRECTORY=/run/machineid:/run/other/machineid-sidecar --tmpfs /run/other:ro
    ok "a tmpfs that belongs to root is named with its remedy" refused 'belongs to uid 0' \
        --tmpfs /run/machineid-sidecar:mode=1777
}

# --- compose ------------------------------------------------------------------------------------------------------------------
composes() {
    local project=mid$$-compose place=$work/$mode/compose
    [ -e "$work/tools/podman_compose.py" ] && [ -x /usr/bin/python3 ] || { skip 'compose: no podman-compose from PyPI'; return; }
    mkdir -p "$place"
    cp -r packaging/launch/. "$place/"
    sed -i 's/^FROM python/FROM docker.io\/library\/python/; s/--from=machineid-sidecar /--from=localhost\/machineid-sidecar /' "$place/agent.Dockerfile"
    # As the example's first lines have it, by the user who runs it.
    install -d -m 700 "$place/secrets" && install -d -m 755 "$place/secrets/machineid"
    new_key compose: "compose-$mode" > "$place/secrets/machineid/org-key"
    cat > "$place/compose.override.yaml" <<END
services:
  machineid-sidecar:
    image: localhost/machineid-sidecar
    network_mode: host
    environment:
      MACHINEID_BASE_URL: $url
  agent:
    network_mode: none
    depends_on:
      machineid-sidecar:
        condition: service_started
END
    chown -R "$([ "$mode" = rootless ] && echo "$user" || echo root):" "$place"
    chmod a+rx "$place"
    compose() { as env -C "$place" PYTHONPATH="$work/tools" /usr/bin/python3 "$work/tools/podman_compose.py" --podman-path "$work/$mode.podman" --no-ansi -p "$project" -f compose.yaml -f compose.override.yaml "$@"; }
    ok 'compose: the example starts' compose up -d
    local daemon=${project}_machineid-sidecar_1 agent=${project}_agent_1
    ok 'compose: the daemon reads the key of another user, and has a decision' within 20 pod exec "$daemon" machineid-sidecar healthcheck --ready
    ok 'compose: the agent runs' within 20 pod exec "$daemon" sh -c "machineid status --json | grep '\"killer\"'"
    gone() {
        local pids
        pids=$(processes "$agent")
        revoke compose:agent || return
        # shellcheck disable=SC2086 # one word for each process
        within 20 ended_with 77 "$agent" && within 3 none_lives $pids
    }
    ok 'compose: a revoke ends the agent with 77 and leaves no process' gone
    compose down -v -t 1 > /dev/null 2>&1
}

# --- kube play -------------------------------------------------------------------------------------------------------------------
kubes() {
    local place=$work/$mode/kube pod
    pod=$(name kube)
    [ -d "$work/tools/yaml" ] || { skip 'kube play: no PyYAML'; return; }
    mkdir -p "$place"
    # podman 4.3 knows no native sidecars, so the daemon becomes an ordinary container; nor groups of volumes (fsGroup).
    PYTHONPATH="$work/tools" python3 - "$pod" "$url" "$(new_key 'k8s:' "kube-$mode")" "$work/stubborn.py" "$mode" > "$place/pod.yaml" <<'END'
import sys, yaml
name, url, key, agent, mode = sys.argv[1:]
read = lambda file: list(yaml.safe_load_all(open(f"packaging/kubernetes/{file}.yaml")))
configuration, = read("configmap")
toml = configuration["data"]["machineid-sidecar.toml"]
configuration["data"]["machineid-sidecar.toml"] = toml.replace("https://machineid.io", url) \
    .replace('group = "65532"', 'mode = "0666"') + '[enforcement]\nstop_grace = "1s"\n'
pod, = read("sidecar")
pod["metadata"]["name"] = name
spec = pod["spec"]
spec["hostNetwork"] = True
daemon = next(one for one in spec["initContainers"] if one["name"] == "machineid-sidecar")
spec["initContainers"].remove(daemon)
daemon.pop("restartPolicy")
spec["containers"].insert(0, daemon)
for one in spec["initContainers"] + spec["containers"]:
    one["image"] = one["image"].replace("machineid-sidecar:0.1.0", "localhost/machineid-sidecar:latest") \
        .replace("python:3.13-slim", "docker.io/library/python:3.13-slim")
    one["imagePullPolicy"] = "Never"
    for field in ("startupProbe", "livenessProbe", "ports"):
        one.pop(field, None)
    if mode == "rootless":
        # Without root there are no limits with the first version of control groups.
        one.pop("resources", None)
    for variable in one.get("env", []):
        field = variable.pop("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        if field:
            variable["value"] = {"metadata.name": name, "metadata.namespace": "default"}[field]
worker = spec["containers"][1]
worker["command"].insert(1, "--wait=1m")
# podman gives a volume to the user of the container that mounts it first, and the containers of a pod start in no order.
worker["securityContext"]["runAsUser"] = 65532
worker["args"] = ["python3", "-c", open(agent).read()]
# A volume of podman's is root's where the image has no such directory. (A copy: in the file this is one object with the daemon's.)
spec["initContainers"][0]["securityContext"] = {**spec["initContainers"][0]["securityContext"], "runAsUser": 0}
secret = next(one for one in spec["volumes"] if one["name"] == "org-key")
secret.clear()
secret.update(name="org-key", configMap={"name": "org-key"})
keys = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "org-key"}, "data": {"org-key": key}}
print(yaml.safe_dump_all([configuration, keys, pod]))
END
    chmod -R a+rX "$place"
    ok 'kube play: the manifests start' pod kube play --network host "$place/pod.yaml"
    decided() { within 20 pod exec "$pod-machineid-sidecar" machineid-sidecar healthcheck --ready || { pod logs "$pod-machineid-sidecar"; return 1; }; }
    ok 'kube play: the daemon has a decision' decided
    within 20 says "$pod-agent" ready
    kube_revoke() {
        local pids
        pids=$(processes "$pod-agent")
        revoke "k8s:default/$pod" || return
        # shellcheck disable=SC2086 # one word for each process
        within 20 ended_with 77 "$pod-agent" && within 3 none_lives $pids
    }
    ok 'kube play: a revoke ends the agent with 77 and leaves no process' kube_revoke
    pod kube down "$place/pod.yaml" > /dev/null 2>&1
}

# --- all of it, in each mode ----------------------------------------------------------------------------------------------------
# Only what git would give, where any user can read it.
source=$work/source
mkdir "$source"
tar --exclude=./target --exclude=./.git -cf - . | tar -xf - -C "$source"
chmod -R a+rX "$source"
useradd --no-create-home --home-dir "$work/rootless" --shell /bin/sh "$user"
mkdir -p "$work/rootful/run" "$work/rootless/run"
chown -R "$user:" "$work/rootless"
chmod 700 "$work/rootless/run"

# Here, where the ordinary user can run it, by an interpreter that it can run too.
python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --target "$work/tools" podman-compose ||
    echo 'pip could not install podman-compose'
chmod -R a+rX "$work/tools"
for mode in rootful rootless; do
    printf '#!/bin/sh\nexec podman --root %s --runroot %s --storage-driver %s "$@"\n' "$work/$mode/storage" "$work/$mode/r" \
        "${DRIVER:-overlay}" > "$work/$mode.podman"
    chmod 755 "$work/$mode.podman"
done

for mode in "${modes[@]}"; do
    about="$mode: "
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    url=http://127.0.0.1:$port
    ok 'the images are built of the Dockerfile' build
    ok 'the image of the documentation is built' build_agents
    agents() {
        sed 's/--from=machineid-sidecar /--from=localhost\/machineid-sidecar /; s/^FROM python/FROM docker.io\/library\/python/' packaging/launch/agent.Dockerfile \
            > "$work/programs/agent.Dockerfile" && chmod a+r "$work/programs/agent.Dockerfile" &&
            pod build -q --pull=never --format docker -t localhost/agent -f "$work/programs/agent.Dockerfile" "$work/programs"
    }
    ok "the agent's image of the compose example is built" agents
    ok 'the authority runs in its image, as a user without rights' authority
    [ -s "$work/$mode.host" ] || continue
    entrypoints
    sidecars
    places
    composes
    kubes
    clean_up
done
outcome
