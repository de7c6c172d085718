"""The counter page: the box without hardware, for hands, scripts and scripted days."""
