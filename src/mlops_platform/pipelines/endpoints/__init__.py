"""The HTTP API of the Pipeline Orchestrator."""
