#!/usr/bin/env bash
# Proves what is in deploy/ as far as a machine without its services can: queries against the catalog, Prometheus files
# and rule tests by promtool, YAML and JSON by their parsers, the unit by systemd-analyze. Tools that are missing are
# named and skipped, but for promtool's rule tests: without them the exit code is 77 (skipped, for ctest).
set -euo pipefail
cd "$(dirname "$0")/../.."
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

python3 tests/deploy/check_queries.py . --rules-out "$work/dashboard.yml"

# The check itself must be able to fail: each of these mutations has to be found.
mutate() {
  rm -rf "$work/copy" && mkdir -p "$work/copy/tests" && cp -r deploy "$work/copy/" && cp -r tests/deploy "$work/copy/tests/"
  sed -i "$2" "$work/copy/$1"
  if cmp -s "$1" "$work/copy/$1"; then echo "mutation '$2' changes nothing in $1" >&2; exit 1; fi
  if python3 tests/deploy/check_queries.py "$work/copy" >/dev/null 2>&1; then
    echo "check_queries.py did not notice: $2 in $1" >&2
    exit 1
  fi
}
dashboard=deploy/grafana/dashboards/ganglion.json
mutate "$dashboard" 's/ganglion_requests_in_flight/ganglion_request_in_flight/'
mutate "$dashboard" 's/sum by (code)/sum by (status)/'
mutate "$dashboard" 's/result=~/outcome=~/'
mutate "$dashboard" 's/{{backend}} {{code}}/{{backend}} {{model}}/'
mutate "$dashboard" 's/cache, le) (rate/cache) (rate/'
mutate "$dashboard" 's/ganglion_ledger_commit_seconds_bucket/ganglion_ledger_commit_seconds/'
mutate deploy/prometheus/rules/alerts.yml 's/ganglion_upstream_healthy/ganglion_upstream_up/'
mutate deploy/prometheus/rules/alerts.yml 's/alert: GanglionDown/alert: GanglionGone/'

python3 - <<'PY'
import json, pathlib, yaml
for path in sorted(pathlib.Path("deploy").rglob("*")):
    if path.suffix in (".yml", ".yaml"):
        list(yaml.safe_load_all(path.read_text()))
    elif path.suffix == ".json":
        json.loads(path.read_text())
compose = yaml.safe_load(pathlib.Path("deploy/docker/compose.yaml").read_text())
for name, service in compose["services"].items():
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        if source.startswith("."):
            assert (pathlib.Path("deploy/docker") / source).exists(), f"{name} mounts {source}, which is not there"
        else:
            assert source in compose["volumes"], f"{name}: volume {source} is not declared"
dockerfile = pathlib.Path("deploy/docker/Dockerfile").read_text()
for line in dockerfile.splitlines():
    if line.startswith("COPY ") and not line.startswith("COPY --from"):
        source = line.split()[1]
        assert pathlib.Path(source).exists() or source == "models/demo-chat", f"Dockerfile copies {source}, which is not there"
PY

python3 tests/deploy/check_image.py "${GANGLION_BINARY:-build/release/ganglion}"

if command -v systemd-analyze >/dev/null; then
  # The program itself is not installed here; everything else that verify says counts.
  said="$(systemd-analyze verify deploy/systemd/ganglion.service 2>&1 | grep -v 'is not executable: No such file' || true)"
  if grep -q 'ganglion.service' <<<"$said"; then echo "$said" >&2; exit 1; fi
  # Exposure in tenths: 12 as it is, 0 is the least; a loosened unit shows.
  systemd-analyze security --offline=true --threshold=15 deploy/systemd/ganglion.service >"$work/said" \
    || { tail -n 3 "$work/said" >&2; exit 1; }
else
  echo "systemd-analyze is not here: the unit was not checked"
fi

if ! command -v promtool >/dev/null; then
  echo "promtool is not here: rules were not tested (Debian package prometheus)"
  exit 77
fi
cp -r deploy/prometheus/. "$work/"
promtool check config "$work/prometheus.yml" >"$work/said" || { cat "$work/said" >&2; exit 1; }
promtool check rules "$work/dashboard.yml" >"$work/said" || { cat "$work/said" >&2; exit 1; }
promtool test rules tests/deploy/rules_test.yml
cp deploy/docker/prometheus.yml "$work/prometheus.yml"
promtool check config "$work/prometheus.yml" >"$work/said" || { cat "$work/said" >&2; exit 1; }
echo "deploy: good"
