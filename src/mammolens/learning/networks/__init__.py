"""Networks, as they learn and as they are saved."""
