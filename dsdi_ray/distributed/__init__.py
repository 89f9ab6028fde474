"""Ray adapters: the only package that imports ray, and it holds no arithmetic."""
