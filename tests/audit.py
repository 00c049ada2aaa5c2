"""The locked versions against a database of known vulnerabilities: `make audit`.

pip-audit says "No known vulnerabilities found" of packages that it could not look up, too; this
tells the two apart.
"""

import json
import subprocess
import sys
from typing import Any


def verdict(dependencies: list[dict[str, Any]]) -> tuple[int, list[str]]:
    """Return an exit code, 1 where a hole is known, and what to say, a line each.

    Args:
        dependencies: as pip-audit's JSON lists them.
    """
    holes = [
        f"{one['name']} {one['version']}: {hole['id']} ({', '.join(hole['aliases'])}), "
        f"mended in {', '.join(hole['fix_versions']) or 'no version yet'}"
        for one in dependencies
        for hole in one.get("vulns", ())
    ]
    skipped = [one["name"] for one in dependencies if "skip_reason" in one]
    looked_up = len(dependencies) - len(skipped)
    if not looked_up:
        return 0, ["Not audited: no database of known vulnerabilities answered."]
    said = [*holes, f"{looked_up} packages looked up, {len(holes)} known vulnerabilities."]
    if skipped:
        said.append(f"Not looked up: {', '.join(skipped)}.")
    return int(bool(holes)), said


def main(lock: str) -> int:
    """Audit a lock file; where the service cannot be reached, say so, and end with 0."""
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--no-deps", "--format", "json"]
    command += ["--progress-spinner", "off", "--requirement", lock]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        dependencies = json.loads(done.stdout)["dependencies"]
    except ValueError:  # it wrote no answer, but why
        dependencies = []
        print(done.stderr.strip().rpartition("\n")[2], file=sys.stderr)  # noqa: T201
    code, said = verdict(dependencies)
    print("\n".join(said))  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
