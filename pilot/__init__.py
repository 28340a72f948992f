"""Who works: the pilot agent, its node probe, payload runner and watchdog."""
