"""Whether posteriors are what they claim: ranks, coverage, tests, repairs."""
