"""What a solve returns: potentials, and all that follows from them."""
