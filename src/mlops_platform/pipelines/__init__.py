"""Pipeline Orchestrator: DAGs, schedules, durable runs."""
