"""Getting, importing, checking and simulating a Qlib provider; daily cross-sections."""
