"""One pass: observe, plan, write the status, act; and the removal of data."""
