"""The command line: one file a group of commands. The only place that prints and exits."""
