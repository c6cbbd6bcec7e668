"""Names of files and folders inside the artifacts that steps hand to each other."""

from __future__ import annotations

EVALUATION = "evaluation.json"
PLAN = "plan.json"
RELEASE, BUNDLE = "release.json", "bundle"
# A folder of objects for a cluster, one JSON file each.
OBJECTS = "kubernetes"
