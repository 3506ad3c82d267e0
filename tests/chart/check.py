"""Runs kube-score and checkov over the rendered chart; a finding that exceptions.toml does not know fails, and so does an idle exception.

Usage: python -m tests.chart.check
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.chart.gotool import built
from tests.chart.rendering import FULL, ROOT, render

HERE = Path(__file__).parent
CHECKOV = ROOT / ".venv-checkov" / "bin" / "checkov"
GOOD_GRADE = 10
"""kube-score's grade of a check that has nothing to say."""
VALUES: dict[str, dict[str, Any]] = {"default": {}, "full": FULL}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one tool holds against one object (`<Kind>/<name>`) rendered with one set of values."""

    check: str
    object: str
    values: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolException:
    """Findings that stay, and why."""

    checks: tuple[str, ...]
    objects: re.Pattern[str]
    values: frozenset[str]
    reason: str

    def covers(self, finding: Finding) -> bool:
        return finding.check in self.checks and finding.values in self.values and bool(self.objects.fullmatch(finding.object))


def exceptions(toml: str) -> list[ToolException]:
    """The exceptions of a file; one without a reason is refused."""
    found = []
    for entry in tomllib.loads(toml)["exception"]:
        if not entry["reason"].strip():
            raise ValueError(f"{entry['checks']}: an exception needs its reason")
        objects, values = re.compile(entry["objects"]), frozenset(entry["values"])
        found.append(ToolException(checks=tuple(entry["checks"]), objects=objects, values=values, reason=entry["reason"]))
    return found


def judge(findings: Iterable[Finding], known: Iterable[ToolException]) -> list[str]:
    """What fails: findings that no exception covers, and checks of exceptions that found nothing with one of their sets of values."""
    all_findings, all_known = list(findings), list(known)
    wrong = [
        f"{finding.check} {finding.object} ({finding.values} values): {finding.text}"
        for finding in all_findings
        if not any(exception.covers(finding) for exception in all_known)
    ]
    hit = {(finding.check, finding.values) for finding in all_findings if any(exception.covers(finding) for exception in all_known)}
    wrong += [
        f"{check} with {values} values: the exception excepts nothing; take it out of exceptions.toml"
        for exception in all_known
        for check in exception.checks
        for values in sorted(exception.values)
        if (check, values) not in hit
    ]
    return wrong


def kube_score(manifest: Path, values: str) -> list[Finding]:
    """What kube-score holds against the objects, optional checks left out."""
    done = subprocess.run([built("kube-score"), "score", "--output-format", "json", manifest], capture_output=True, text=True, timeout=60)
    if not done.stdout.startswith("["):
        raise RuntimeError(f"kube-score: {done.stderr.strip()}")
    return [
        Finding(
            check=f"kube-score {check['check']['id']}",
            object=f"{scored['type_meta']['kind']}/{scored['object_meta']['name']}",
            values=values,
            text="; ".join(comment["summary"] for comment in check["comments"] or []) or check["check"]["name"],
        )
        for scored in json.loads(done.stdout)
        for check in scored["checks"]
        if check["grade"] < GOOD_GRADE and not check["skipped"]
    ]


def checkov(manifest: Path, values: str) -> list[Finding]:
    """What checkov holds against the objects; it asks no service for more rules."""
    command: list[str | Path] = [
        CHECKOV,
        "--framework",
        "kubernetes",
        "--file",
        manifest,
        "--output",
        "json",
        "--quiet",
        "--compact",
        "--skip-download",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if not done.stdout.startswith("{"):
        raise RuntimeError(f"checkov: {done.stderr.strip()}")
    report = json.loads(done.stdout)
    if report["summary"]["parsing_errors"] or not report["summary"]["passed"]:
        raise RuntimeError(f"checkov did not read the objects: {report['summary']}")
    return [
        Finding(check=f"checkov {failed['check_id']}", object=_checkov_object(failed["resource"]), values=values, text=failed["check_name"])
        for failed in report["results"]["failed_checks"]
    ]


def _checkov_object(resource: str) -> str:
    """`<Kind>.<namespace>.<name>`, after which rules about Pods put the Pod's labels."""
    kind, _, name = resource.split(".")[:3]
    return f"{kind}/{name}"


def main() -> int:
    """Check both sets of values; 0 when nothing is wrong."""
    findings = []
    with tempfile.TemporaryDirectory() as directory:
        for name, values in VALUES.items():
            manifest = Path(directory) / f"{name}.yaml"
            # A CRD is the API server's to judge (tests/integration/test_crd_rules.py).
            objects = [one for one in render(values) if one["kind"] != "CustomResourceDefinition"]
            manifest.write_text("\n---\n".join(yaml.safe_dump(one) for one in objects))
            findings += kube_score(manifest, name) + checkov(manifest, name)
    known = exceptions((HERE / "exceptions.toml").read_text())
    wrong = judge(findings, known)
    sys.stdout.write("\n".join([*wrong, f"{len(findings)} findings, {len(known)} exceptions, {len(wrong)} wrong\n"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
