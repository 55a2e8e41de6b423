"""The commands of ``fpicore``, one module each."""
