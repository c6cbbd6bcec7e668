"""Ends a service on this host; what is installed stays."""

# [START stop_service]
import sys
from pathlib import Path

from airflow_model_deploy.engine.steps.service import stop_service

root, name = sys.argv[1:]
stop_service(Path(root), name)
# [END stop_service]
