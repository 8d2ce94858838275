"""A service under load whose processes are killed and frozen, and the count of what is left."""
