"""The JSON record of a benchmark: metrics, seeds, command, commit, machine."""

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def write_record(
    name: str,
    size: str,
    metrics: Mapping[str, float],
    seeds: list[int],
    out: Path | None,
    *,
    commits: Mapping[str, str] | None = None,
) -> Path:
    """Write benchmarks/results/<name>.json (or `out`) with where the numbers come from.

    Args:
        name: Name of the benchmark, also of its file.
        size: "small", "medium" or "large".
        metrics: Flat name -> number.
        seeds: Seeds used.
        out: Another file to write.
        commits: Of pieces that were measured one by one, by name.
    """
    record = {
        "benchmark": name,
        "size": size,
        "metrics": dict(metrics),
        "seeds": seeds,
        "command": shlex.join(["python", f"benchmarks/{name}.py", *sys.argv[1:]]),
        "commit": commit_of_the_code(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "processor": _processor(),
            "cpus": os.cpu_count(),
            "system": platform.system(),
            "python": platform.python_version(),
        },
    }
    if commits is not None:
        record["commits"] = dict(commits)
    path = out or RESULTS / f"{name}.json"
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
    return path


NO_RESULTS = ":(exclude)benchmarks/results"
"""Pieces finished before the present one are no change of what measures it."""


def commit_of_the_code() -> str:
    """Return the commit, marked where tracked files, other than results, differ from it."""
    try:
        commit = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", NO_RESULTS)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit} with uncommitted changes" if changed else commit


def _git(*words: str) -> str:
    answer = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return answer.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
