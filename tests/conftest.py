"""What holds for every test: no property depends on how fast the machine is."""

from hypothesis import HealthCheck, settings

# On top of Hypothesis' own choice: where CI is set, examples are the same in every run.
settings.register_profile("any machine", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
