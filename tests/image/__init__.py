"""What a box starts from: boot state, initrd, boot script, firmware.  Nothing here needs an emulated machine."""
