"""What a call runs: which update, which schedule, from which start, on cells or points; and what it has reached."""
