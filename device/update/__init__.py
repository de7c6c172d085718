"""The box renews its own root: which slot starts, and what is written to the other one."""
