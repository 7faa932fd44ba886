"""Questions answered from the Python language reference: a program of numeric and host work."""
