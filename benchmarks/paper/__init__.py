"""The experiments of the paper that fpicore implements, one command each; see README.md."""
