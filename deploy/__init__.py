"""How netsim runs elsewhere, and complete, named settings: files only, no code."""
