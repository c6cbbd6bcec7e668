"""Airflow's conventions over the engine's steps: thin, keyword-only, validated after rendering."""
