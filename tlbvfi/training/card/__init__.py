"""Training on a graphics card: scenes are rendered there, and one run goes from the shipped weights to better ones."""
