"""The stage Check: it finds the problems of a run's input before anything costly starts."""
