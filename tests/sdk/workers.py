"""What other processes run in tests: light, because a spawned process imports all of it."""

from mlops_platform.sdk import Platform
from mlops_platform.sdk.settings import ClientSettings, Service


def log_fifty(run, key):
    for step in range(50):
        run.log_metric(key, step, step=step)


def log_from_a_spawned_process(url, home, run_id):
    settings = ClientSettings(urls=dict.fromkeys(Service, url), credential="k", home=home)
    with Platform(settings=settings) as platform:
        run = platform.tracking.join_run(run_id)
        log_fifty(run, "spawned")
        run.flush()
