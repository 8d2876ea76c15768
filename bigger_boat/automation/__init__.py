"""When things run: jobs, schedules, sensors, and the plan of what is missing. No computation on data."""
