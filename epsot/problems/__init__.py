"""What is solved: two measures and a kernel over their pairs, and what the user had posed."""
