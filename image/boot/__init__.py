"""From power-on to systemd: boot script, initrd, and what a Raspberry Pi's firmware reads."""
