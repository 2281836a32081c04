"""Many problems of one padded shape at once: the loop, its updates and its decisions, with a batch axis in front."""
