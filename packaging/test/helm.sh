#!/usr/bin/env bash
# Renders the Helm chart for each kind of workload, checks the results against the schemas of Kubernetes, and compares them with the
# plain manifests, which are these results.
#
#     packaging/test/helm.sh [--bless]      --bless writes packaging/kubernetes/workload-*.yaml again
#
# The helm program is in no package registry. PyPI's helm-python-sdk contains Helm's own Go library (its engine, its checks of values),
# and that is what renders here; `helm install` itself is not run. Half a minute, of which most is the download of 85 MB.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit
tools=target/packaging-tools
[ -x $tools/bin/python ] || python3 -m venv $tools
for package in helm-python-sdk==0.2.2 kubernetes-validate; do
    $tools/bin/python -m pip show --quiet "${package%%=*}" 2> /dev/null ||
        $tools/bin/python -m pip install --quiet --disable-pip-version-check $package ||
        { echo "SKIPPED: packaging/test/helm.sh: cannot install $package"; exit 0; }
done
rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT
$tools/bin/python - "$rendered" "${1:-}" <<'END'
import pathlib, subprocess, sys, tomllib
import yaml
from helm_python import Chart
from helm_python.errors import HelmError

out, bless = pathlib.Path(sys.argv[1]), sys.argv[2] == "--bless"
passed = failed = 0

def ok(sentence, test):
    global passed, failed
    try:
        test()
        passed += 1
        print("ok -", sentence)
    except Exception as error:
        failed += 1
        print("not ok -", sentence, "\n   ", str(error).replace("\n", "\n    "))

def render(**values):
    values = chart.merge_values(values)
    chart.validate_schema(values)
    return chart.render(values, name="agent", namespace="default")

def pod_of(workload):
    spec = workload["spec"]
    return spec.get("jobTemplate", {"spec": spec})["spec"]["template"]["spec"]

def refused(**values):
    try:
        render(**values)
    except HelmError:
        return
    raise AssertionError(f"{values} is accepted")

def validate(file):
    for version in "1.29", "1.37":
        done = subprocess.run([sys.prefix + "/bin/kubernetes-validate", "--strict", "-k", version, file],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

def check(kind, documents):
    workload = next(one for one in documents if one["kind"] == kind)
    pod = pod_of(workload)
    daemon = next(one for one in pod["initContainers"] if one["name"] == "machineid-sidecar")
    agent, = pod["containers"]
    variables = {one["name"]: one.get("value") for one in daemon["env"]}
    assert variables["WORKLOAD"] == f"{kind.lower()}/agent", variables
    assert "--ready" in daemon["startupProbe"]["exec"]["command"], "the agent would start before the first decision"
    waits = "--wait" in agent["command"]
    assert waits == (pod.get("restartPolicy", "Always") == "Always"), "a denied container would restart again and again"
    text = next(one for one in documents if one["kind"] == "ConfigMap")["data"]["machineid-sidecar.toml"]
    assert tomllib.loads(text)["device"]["workload"] == "k8s:{env:POD_NAMESPACE}/{env:WORKLOAD}"

with Chart.load("packaging/helm") as chart:
    for kind in "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob":
        parts = render(kind=kind)
        text = "---\n".join(parts[name].strip() + "\n" for name in sorted(parts) if parts[name].strip())
        file = out / f"{kind}.yaml"
        file.write_text(text)
        ok(f"{kind}: Kubernetes 1.29 and 1.37 take it", lambda: validate(file))
        ok(f"{kind}: all replicas name one workload, and a denied one waits or ends", lambda: check(kind, list(yaml.safe_load_all(text))))
        plain = pathlib.Path(f"packaging/kubernetes/workload-{kind.lower()}.yaml")
        whole = f"# The Helm chart with kind={kind}, rendered by packaging/test/helm.sh --bless. Edit packaging/helm.\n{text}"
        if bless:
            plain.write_text(whole)
        def same():
            assert plain.read_text() == whole, f"{plain} is not what the chart renders; run packaging/test/helm.sh --bless"
        ok(f"{kind}: the plain manifest is what the chart renders", same)
    ok("hostUsers: false is asked for by one value", lambda: [
        None for one in yaml.safe_load_all("---\n".join(render(userNamespace=True).values()))
        if one["kind"] == "Deployment" and pod_of(one)["hostUsers"] is False][0])
    ok("a kind that does not exist is refused", lambda: refused(kind="Pod"))
    ok("a misspelt value is refused", lambda: refused(replica=3))
    ok("the daemon's own user is refused for the agent", lambda: refused(agent={"user": 65532}))
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
END
