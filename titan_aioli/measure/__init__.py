"""What a method sees: losses of groups, evaluations and gradients, measured through any host."""
