"""Ways to run sfwriter: the demo."""
