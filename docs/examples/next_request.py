"""Writes the request of a step that works on another one's result."""

# [START next_request]
import json
from pathlib import Path

trained = json.loads(Path("trained.json").read_text())
request = json.loads(Path("train.json").read_text())
request["step"] = "prune"
request["spec"] = {
    "method": "magnitude-ratio",
    "ratio": 0.5,
    **{field: request["spec"][field] for field in ("data", "metric")},
}
request["inputs"] = {"model": trained["artifact"]}
Path("prune.json").write_text(json.dumps(request, indent=2))
# [END next_request]
