"""The very image in an emulated machine: `make appliance`.  The ordinary suite never comes here."""
