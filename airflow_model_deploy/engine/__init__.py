"""The work itself, in plain Python: this package never imports Airflow."""
