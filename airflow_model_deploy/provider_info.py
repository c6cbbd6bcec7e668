"""What Airflow discovers about this provider: data only, nothing imported."""

from __future__ import annotations

from typing import Any

_MODULES = (
    "autocompress",
    "build",
    "build_image",
    "compress",
    "distill",
    "evaluate",
    "ingest",
    "monitor",
    "optimize",
    "prepare",
    "prune",
    "quantize",
    "rollback",
    "rollout",
    "train",
)


def get_provider_info() -> dict[str, Any]:
    """Return the provider's description in the form of Airflow's provider_info.schema.json."""
    return {
        "package-name": "airflow-model-deploy",
        "name": "Model Deploy",
        "description": "Takes a trained model through compression, gates and packaging to a watched service.",
        "integrations": [
            {
                "integration-name": "Model Deploy",
                "how-to-guide": ["/docs/index.md"],
                "tags": ["software"],
            }
        ],
        "operators": [
            {
                "integration-name": "Model Deploy",
                "python-modules": [f"airflow_model_deploy.operators.{name}" for name in _MODULES],
            }
        ],
        "sensors": [
            {
                "integration-name": "Model Deploy",
                "python-modules": ["airflow_model_deploy.sensors.model_service"],
            }
        ],
        "triggers": [
            {
                "integration-name": "Model Deploy",
                "python-modules": ["airflow_model_deploy.triggers.driver_pod"],
            }
        ],
        "extra-links": [
            "airflow_model_deploy.links.DeploymentLink",
            "airflow_model_deploy.links.ReportLink",
            "airflow_model_deploy.links.ServiceLink",
        ],
        "config": {
            "model_deploy": {
                "description": "Where models and services live unless a Dag says otherwise.",
                "options": {
                    "store": {
                        "description": "URL of the artifact store. Empty: model_deploy/store below AIRFLOW_HOME.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "file:///srv/model-deploy/store",
                        "default": "",
                    },
                    "store_conn_id": {
                        "description": "Connection of type aws or generic with the credentials and the endpoint of"
                        " a store at s3://. Empty: what the machine itself has.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "models_store",
                        "default": "",
                    },
                    "host_root": {
                        "description": "Folder of the host target's services. Empty: model_deploy/host below"
                        " AIRFLOW_HOME.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "/srv/model-deploy/host",
                        "default": "",
                    },
                    "python": {
                        "description": "Interpreter that runs the steps on a worker. Empty: Airflow's own.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "/opt/model-deploy/bin/python",
                        "default": "",
                    },
                    "registry": {
                        "description": "Where images are pushed, as <registry>/<model>. Empty: they stay on the Docker"
                        " engine that builds them.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "registry.example:5000/models",
                        "default": "",
                    },
                    "base_image": {
                        "description": "Image with Python below the server. Empty: python:<version>-slim, of the"
                        " Python that runs the step.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "registry.example:5000/python:3.11-slim",
                        "default": "",
                    },
                    "docker_conn_id": {
                        "description": "Connection of type docker with the registry's address, user and password."
                        " Empty: no login.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "docker_default",
                        "default": "",
                    },
                    "kubernetes_conn_id": {
                        "description": "Connection of type kubernetes by which a cluster is reached. Empty:"
                        " kubernetes_default.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "models_cluster",
                        "default": "",
                    },
                    "driver_image": {
                        "description": "Image of the pod that moves a service's traffic in a cluster. Empty: none.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "registry.example:5000/driver@sha256:...",
                        "default": "",
                    },
                    "deployment_url": {
                        "description": "Where a person looks at a service's objects, for the link Deployment;"
                        " {namespace} and {name} are replaced. Empty: no link.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "https://cluster.example/namespaces/{namespace}/services/{name}",
                        "default": "",
                    },
                    "report_url": {
                        "description": "Where the report of a run is kept, for the link Report; {dag_id} and {run_id}"
                        " are replaced. Empty: no link.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "https://reports.example/{dag_id}/{run_id}/report.html",
                        "default": "",
                    },
                    "worker_image": {
                        "description": "Image in which steps run where a container or a pod is asked for. Empty: none.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "registry.example:5000/worker@sha256:...",
                        "default": "",
                    },
                },
            }
        },
    }
