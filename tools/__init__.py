"""Tools of the project's developers: the small model's training, and the README's pictures of the panel."""
