"""How the appliance's image is made: Debian's packages and our program in, one disk image out.

Runs on the machine that builds, never on the box; the standard library alone.  Nothing here is imported by `device/` or `fleet/`.
Every step is a function of its inputs: the same lists, locks and source give the same bytes (docs/image.md).
"""
