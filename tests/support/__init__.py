"""What tests share and what `make` runs: servers, a tiny sweep, fault campaigns. None of it is a test."""
