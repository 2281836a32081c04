"""The solver: a schedule of temperatures, an update, and the one loop."""
