"""What every test shares: the real services of `stack_fixture`, and hypothesis without a stopwatch."""

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.stack_fixture", "tests.backfill.hdfs"]

# Tests assert what is computed, never how fast: a busy machine is no reason to fail.
settings.register_profile("lake", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lake")
