"""Waiting for what a service in a cluster has become."""
