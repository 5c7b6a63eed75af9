#!/usr/bin/env python3
"""Checks every PromQL query of deploy/ (dashboard and rules) against the catalog of metric families.

A metric name must be in the catalog (or be a recording rule), every label that is matched, grouped by or shown in a
legend must be one of the metric's labels, histograms must be read through _bucket, _sum or _count, and quantiles must
keep `le`. Also that panels have a unit, ids are unique, and every family but the listed ones is shown somewhere.
Usage: check_queries.py ROOT [--rules-out FILE]: the second form also writes all dashboard queries as one rules file,
so that promtool can check their syntax.
"""

import json
import re
import sys
from pathlib import Path

import yaml

TARGET_LABELS = {"job", "instance"}
# Shown in no panel of the dashboard, each with its reason.
NOT_ON_DASHBOARD = {
    "ganglion_access_log_dropped_total": "watched by operators of the log pipeline",
    "ganglion_label_overflow_total": "has an alert",
    "ganglion_draining": "short-lived",
    "process_max_fds": "has an alert",
    "process_start_time_seconds": "has an alert",
}
NAME = r"(?:ganglion|process)_[a-z_]+|up"
RECORDED = r"[a-z_]+:[a-z0-9_]+:[a-z0-9_]+"
SELECTOR = re.compile(rf"(?<![\w:])({RECORDED}|{NAME})(?![\w:(])(\{{[^}}]*\}})?")
MATCHER = re.compile(r'([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)\s*"')
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
LEGEND = re.compile(r"\{\{\s*(\w+)\s*\}\}")


class Checker:
    def __init__(self, catalog):
        self.labels = {}
        self.used = set()
        self.problems = []
        for family in catalog:
            labels = set(family["labels"])
            if family["type"] == "histogram":
                self.labels[family["name"] + "_bucket"] = labels | {"le"}
                self.labels[family["name"] + "_sum"] = labels
                self.labels[family["name"] + "_count"] = labels
            else:
                self.labels[family["name"]] = labels
        self.labels["up"] = set()

    def problem(self, where, text):
        self.problems.append(f"{where}: {text}")

    def query(self, where, expr, legend=""):
        """Returns the labels that the query's metrics have together."""
        seen = set()
        bare = re.sub(r'"[^"]*"', '""', expr)
        grouping_stripped = GROUPING.sub("", expr)
        for name, matchers in SELECTOR.findall(grouping_stripped):
            if name not in self.labels:
                self.problem(where, f"unknown metric {name}")
                continue
            self.used.add(name)
            allowed = self.labels[name] | TARGET_LABELS
            seen |= allowed
            for label in MATCHER.findall(matchers):
                if label not in allowed:
                    self.problem(where, f"{name} has no label {label}")
        if not seen:
            self.problem(where, "no metric of the catalog in " + expr)
        for group in GROUPING.findall(bare):
            for label in filter(None, (part.strip() for part in group.split(","))):
                if label not in seen:
                    self.problem(where, f"grouped by {label}, which no metric of the query has")
        kept = {label for group in GROUPING.findall(bare) for label in re.split(r"\s*,\s*", group.strip()) if label}
        for label in LEGEND.findall(legend):
            if label not in (kept if kept else seen):
                self.problem(where, f"the legend shows {label}, which the query does not keep")
        if "histogram_quantile" in expr and "le" not in kept:
            self.problem(where, "histogram_quantile without `le` in its grouping")
        if re.search(r"\b(?:rate|increase)\((?:ganglion|process)_\w+", expr):
            for name in re.findall(r"\b(?:rate|increase)\(([a-z_]+)", expr):
                if not re.search(r"_(total|bucket|sum|count)$", name):
                    self.problem(where, f"rate of {name}, which is a gauge")
        return seen


def expressions(dashboard, checker):
    """(where, expression, legend) of every query in the dashboard."""
    ids = set()
    for panel in dashboard["panels"]:
        if panel["id"] in ids:
            checker.problem(panel["title"], f"panel id {panel['id']} twice")
        ids.add(panel["id"])
        if panel["type"] == "row":
            continue
        if not panel["fieldConfig"]["defaults"].get("unit"):
            checker.problem(panel["title"], "no unit")
        if not panel["targets"]:
            checker.problem(panel["title"], "no query")
        for target in panel["targets"]:
            yield f"panel {panel['title']!r}", target["expr"], target.get("legendFormat", "")
    for annotation in dashboard["annotations"]["list"]:
        yield f"annotation {annotation['name']!r}", annotation["expr"], annotation["titleFormat"]


def check_variables(dashboard, checker):
    names = {v["name"] for v in dashboard["templating"]["list"]}
    for variable in dashboard["templating"]["list"]:
        if variable["type"] != "query":
            continue
        match = re.fullmatch(r"label_values\((.*),\s*(\w+)\)", variable["query"]["query"])
        where = f"variable {variable['name']!r}"
        if not match:
            checker.problem(where, "is no label_values(metric, label)")
            continue
        if match[2] not in checker.query(where, match[1]):
            checker.problem(where, f"the metric has no label {match[2]}")
    text = json.dumps(dashboard["panels"])
    for name in re.findall(r"\$\{?(\w+)", text):
        if name not in names and not name.startswith("__"):
            checker.problem("dashboard", f"${name} is no variable")


def substituted(expr):
    expr = expr.replace("$__rate_interval", "5m").replace("$__range", "1h")
    return re.sub(r"\$\{?\w+\}?", ".*", expr)


def main():
    root = Path(sys.argv[1])
    deploy = root / "deploy"
    catalog = json.loads((deploy / "metrics_catalog.json").read_text())
    checker = Checker(catalog)

    rules = []
    for path in sorted((deploy / "prometheus/rules").glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            rules += [(path.name, rule) for rule in group["rules"]]
    for _, rule in rules:  # recorded series keep the labels that their name promises
        if "record" in rule:
            level = rule["record"].split(":")[0]
            checker.labels[rule["record"]] = {l for f in catalog for l in f["labels"] if l in level} | {"job"}
    # A recording rule may also be tested through the alert that reads it.
    tests = (root / "tests/deploy/rules_test.yml").read_text()
    tests += "\n".join(rule["expr"] for _, rule in rules if rule.get("alert", "?") in tests)
    for name, rule in rules:
        title = rule.get("record") or rule.get("alert")
        seen = checker.query(f"{name} {title}", rule["expr"])
        if "alert" in rule:
            for label in re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])):
                if label not in seen:
                    checker.problem(f"{name} {title}", f"the text shows {label}, which the query does not have")
            if "severity" not in rule["labels"]:
                checker.problem(f"{name} {title}", "no severity")
        if not re.search(rf"\b{re.escape(title)}\b", tests):
            checker.problem(f"{name} {title}", "has no test in tests/deploy/rules_test.yml")

    checker.used.clear()
    dashboard = json.loads((deploy / "grafana/dashboards/ganglion.json").read_text())
    queries = list(expressions(dashboard, checker))
    for where, expr, legend in queries:
        checker.query(where, expr, legend)
    check_variables(dashboard, checker)
    for family in catalog:
        shown = {family["name"], family["name"] + "_bucket", family["name"] + "_sum"} & checker.used
        if not shown and family["name"] not in NOT_ON_DASHBOARD:
            checker.problem("dashboard", f"{family['name']} is shown nowhere")

    if "--rules-out" in sys.argv:
        out = sys.argv[sys.argv.index("--rules-out") + 1]
        rendered = [{"record": f"check:dashboard:query{i}", "expr": substituted(e)} for i, (_, e, _) in enumerate(queries)]
        Path(out).write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rendered}]}))
    for problem in checker.problems:
        print(problem, file=sys.stderr)
    print(f"{len(queries)} dashboard queries and {len(rules)} rules checked, {len(checker.problems)} problems")
    return 1 if checker.problems else 0


if __name__ == "__main__":
    sys.exit(main())
