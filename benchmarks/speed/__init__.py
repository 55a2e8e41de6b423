"""fpicore beside its peers: time, evaluations, residual and gradient error, in one record."""
