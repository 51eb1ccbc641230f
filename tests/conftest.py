"""What every test shares: the real services of `lake_testing.stack`, and hypothesis without a stopwatch."""

from hypothesis import HealthCheck, settings

pytest_plugins = [
    "lake_testing.stack",
    "lake_testing.hdfs",
    "lake_testing.lake_of_roles",
    "lake_testing.aws_emulator",
]

# Tests assert what is computed, never how fast: a busy machine is no reason to fail.
settings.register_profile("lake", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lake")
