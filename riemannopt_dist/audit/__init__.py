"""How far maps of any origin are from the converged map of their path."""
