"""Optical flow by a learned energy whose minimum is a fixed point; the command is __main__.py."""
