"""The same hypergradients in other libraries, written as their users would."""
