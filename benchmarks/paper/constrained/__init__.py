"""Constrained problems whose solution is a fixed point; the command is __main__.py."""
