"""What is done: instructions, `lower`, `verify`, and a program as text."""
