"""Tables: the seam to the engines, and the engines behind it."""
