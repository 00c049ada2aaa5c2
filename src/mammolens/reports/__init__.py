"""What was found, as pages, tables and figures that people read. Computes nothing that is reported."""
