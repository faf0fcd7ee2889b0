"""Every SQL statement of the Pipeline Orchestrator.

`definitions`, `runs` and `logs` serve callers and see only the caller's project. `dispatch`, `settlement` and
`firing` serve the platform's own duties, which work for every project.
"""
